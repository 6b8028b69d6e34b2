"""Measurements that are run by hand: they need a quiet machine, so no test starts them."""
