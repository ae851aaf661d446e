"""The Self-Attention Network (Appl. Sci. 2021, 11, 1826): a top-down network for 2D and 3D."""
