"""From interactions and feedback to a dataset version."""
