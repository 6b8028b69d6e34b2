"""The reference pages of docs/, written from the code: commands, settings, the fleet's fields, the gateway's API."""
