import sys
from pathlib import Path

# The toys of the tests of inference and training.
sys.path += [str(Path(__file__).parents[1] / name) for name in ("inference", "training")]
