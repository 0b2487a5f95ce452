"""Figures: functions that take data and return a Matplotlib figure."""
