"""Talking to upstreams: one client, two ways to send."""
