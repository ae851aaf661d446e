"""Pictures and calibrations from cameras and files: decoding, contrast, orientation."""
