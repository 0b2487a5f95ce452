"""Testing a trained network."""
