"""Identities and motion of people from frame to frame."""
