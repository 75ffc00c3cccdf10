"""One thin file a command: read the arguments, call the library, print a table.

Libraries that are slow to import are imported inside the commands, so that `--help` answers at once.
"""
