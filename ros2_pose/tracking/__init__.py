"""Who is who from image to image."""
