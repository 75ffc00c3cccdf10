"""`python -m foveate` is the command line."""

from foveate.cli.app import main

main()
