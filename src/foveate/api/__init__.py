"""What Python users call, with names and paths as on the command line."""
