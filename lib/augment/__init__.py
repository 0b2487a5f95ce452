"""Augmentations of clips: pure functions, and the draws of their parameters."""
