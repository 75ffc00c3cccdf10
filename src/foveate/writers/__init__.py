"""Writers: rasters, labels and polygons as files, each complete or not there."""
