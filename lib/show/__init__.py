"""Figures, widgets and the report."""
