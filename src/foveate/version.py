"""The version, read by the build and by `foveate --version`."""

__version__ = "0.1.0"
