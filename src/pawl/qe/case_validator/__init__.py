"""The agent `test-validator`: which of some test cases are right, before anybody runs them."""
