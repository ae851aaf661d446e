"""Benchmarks of the parts of the package."""
