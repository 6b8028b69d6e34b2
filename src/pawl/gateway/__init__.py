"""The OpenAI-compatible gateway: one process in front of all agents."""
