"""What networks are trained with."""
