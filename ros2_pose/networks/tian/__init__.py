"""The network of Tian, Gao and Tan 2023; `detector.py` is the class that the pipeline creates."""
