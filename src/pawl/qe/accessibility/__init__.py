"""The agent `accessibility-advocate`: pages, the browser, axe-core as the oracle."""
