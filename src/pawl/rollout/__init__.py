"""Shifting traffic by evidence: routes, states, sequential tests, decisions."""
