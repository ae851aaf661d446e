"""Programs around the node: demo, bench, soak, bag player."""
