"""The agent `spec-analyzer`: what an operation demands of its body, as a list of rules."""
