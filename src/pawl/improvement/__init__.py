"""The steps of the weekly loop, each one call on open ports: what the flows' tasks run."""
