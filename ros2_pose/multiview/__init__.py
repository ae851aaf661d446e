"""Several calibrated cameras, one answer."""
