"""Groups of subcommands of `pawl`."""
