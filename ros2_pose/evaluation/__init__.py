"""Figures by the protocols of the field; each is printed by a command of its own."""
