"""Where people rate: a page on loopback, and the terminal."""
