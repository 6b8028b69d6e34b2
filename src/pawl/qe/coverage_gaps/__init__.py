"""The task `coverage-analysis`: code with its tests and what they reach in, what is left out and calls for it out."""
