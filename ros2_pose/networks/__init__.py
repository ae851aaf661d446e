"""Pose networks, one file or folder each; `registry.py` lists them, `base.py` is their contract."""
