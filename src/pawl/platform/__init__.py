"""The platform on one machine: its servers as processes (`pawl up`, `pawl down`), and what may be wrong with it
(`pawl doctor`)."""
