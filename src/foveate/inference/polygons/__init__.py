"""Polygons of class maps of any size: borders are traced strip by strip and joined across strips."""
