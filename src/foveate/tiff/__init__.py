"""TIFF, written: by blocks, from tiles compressed before, or from a reader; every file is a cloud-optimised one."""
