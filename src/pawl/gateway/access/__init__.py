"""Who may call, how much, and where their requests may go."""
