"""Interactive views of the notebooks."""
