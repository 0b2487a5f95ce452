"""What is done to clips."""
