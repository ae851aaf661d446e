"""Synchronisation of messages and transforms by their stamps."""
