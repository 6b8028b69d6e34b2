"""Personal data and secrets out of texts: what is found, and what stands in its place."""
