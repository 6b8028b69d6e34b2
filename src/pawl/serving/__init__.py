"""Serving: vLLM processes on this machine, and adapters loaded into them while they run."""
