"""Metrics, each by the protocol that it names."""
