"""DAS, the distribution-aware single-stage network of Wang et al. 2022."""
