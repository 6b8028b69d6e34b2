"""Adapter versions with their lineage, and a person's approval of them."""
