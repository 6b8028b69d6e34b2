"""The agent `functional-positive`: prompt, oracle, what three payloads can cover, reference answers."""
