"""Pawl: continuous learning for fleets of specialised LLM agents."""

__version__ = "0.1.0"
