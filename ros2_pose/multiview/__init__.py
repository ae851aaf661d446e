"""People of several calibrated cameras, associated and fused in one frame."""
