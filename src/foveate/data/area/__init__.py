"""Areas: which pixels of an image are looked at."""
