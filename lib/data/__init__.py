"""Prepared data sets: exact frames, clips and batches."""
