"""`python -m foveate` is the command line."""

import sys
from pathlib import Path

# Python puts the current directory first, which may hold anything; the installed command does not either.
if not sys.flags.safe_path and sys.path and Path(sys.path[0] or ".").resolve() == Path.cwd():
    del sys.path[0]

from foveate.cli.app import main

main()
