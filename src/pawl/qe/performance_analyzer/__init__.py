"""The agent `performance-analyzer`: is a service well, and if not, since when and why?"""
