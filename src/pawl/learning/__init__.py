"""What the platform learns about its own traffic, apart from the adapters."""
