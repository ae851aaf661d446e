"""Pictures of people that are drawn from motion capture."""
