"""The body: an open SMPL-format model, its pose prior, and the fit of both to what a camera saw."""
