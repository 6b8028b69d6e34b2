"""Where a request goes: complexity, candidates, load, breakers."""
