"""What the loop did and what it was worth: economics and the one page people read."""
