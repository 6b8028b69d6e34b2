"""The task `unit-test-generation`: code in, pytest tests out."""
