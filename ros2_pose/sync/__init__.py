"""What belongs to one time: images of several topics, and transforms."""
