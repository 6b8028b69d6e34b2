"""HTTP operations with the JSON Schema of their bodies: what the API-testing agents work on."""
