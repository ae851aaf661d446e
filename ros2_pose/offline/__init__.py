"""Processing of recordings: bags, videos and pictures; no ROS here."""
