"""What this machine is, what would fail on it, and whether its GPU computes what the CPU does."""
