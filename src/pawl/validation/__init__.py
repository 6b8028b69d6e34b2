"""Is the data what we take it for: rules as data, checked by Great Expectations."""
