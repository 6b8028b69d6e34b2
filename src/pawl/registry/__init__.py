"""Versions, their lineage and aliases; approvals that are bound to the evidence."""
