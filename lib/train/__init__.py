"""Training: objectives, the loop and what a run needs."""
