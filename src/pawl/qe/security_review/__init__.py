"""The agents `security-review` and `security-auth`: is this code or this endpoint vulnerable, and how?"""
