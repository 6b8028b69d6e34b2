"""What an agent is: specs, and the file that declares the fleet."""
