"""The agent `code-review`: what is wrong with a change, and where?"""
