"""The agent `flaky-detection`: a test and some reruns of it, is it flaky, and why?"""
