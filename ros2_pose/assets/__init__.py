"""Makes the files that are shipped: the open body and the pose prior. Not used at run time."""
