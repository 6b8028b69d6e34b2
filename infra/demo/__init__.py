"""The demo: every real server of Pawl on this machine, real traffic, and one or more weeks of learning."""
