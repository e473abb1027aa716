"""A picture of what a config feeds to the network."""
