"""Training of the network of Tian et al. 2023 and of the lift."""
