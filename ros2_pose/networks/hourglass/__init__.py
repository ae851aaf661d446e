"""Stacked hourglasses (Benzine et al. 2019); `detector.py` has the classes of the pipeline."""
