"""A run: its directory, processes and device."""
