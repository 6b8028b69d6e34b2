"""The agent `functional-negative`: prompt, oracle, reference answers, variants."""
