"""Experiments through the notebooks, here or on a cluster."""
