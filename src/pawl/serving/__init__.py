"""The serving cluster: vLLM processes, and which adapters are where."""
