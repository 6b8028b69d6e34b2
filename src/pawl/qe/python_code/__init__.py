"""Pieces of Python code as tasks: where they come from, and what running them apart tells of them."""
