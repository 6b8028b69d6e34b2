"""Comparing models on the same items: runner, paired statistics, report, gate."""
