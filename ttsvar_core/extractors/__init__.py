"""Feature extractors that run a network: images in, one vector per image out."""
