"""The network of Tian et al. 2023."""
