"""Metrics, each with the protocol that it names; training and evaluation both use them."""
