"""Networks and weights that others have published, opened when a run names one."""
