"""Training a segmenter and its policy together, with Lightning's Trainer."""
