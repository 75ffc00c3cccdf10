"""Patches: at which fields of view they are cut, how they are read, and how their outputs return to the image."""
