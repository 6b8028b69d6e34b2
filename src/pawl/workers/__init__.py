"""Where the pieces of long work run: in this process, or on the machines of a cluster."""
