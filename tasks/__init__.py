"""Thin Prefect tasks: open the ports, call one domain function, return a small frozen value."""
