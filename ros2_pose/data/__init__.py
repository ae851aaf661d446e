"""Readers of datasets, motion capture, and synthetic data."""
