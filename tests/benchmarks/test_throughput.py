import json
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("monai")
SCRIPT = Path(__file__).parents[2] / "benchmarks" / "throughput.py"


@pytest.mark.slow
def test_the_comparison_runs_and_both_sides_pass_the_same_patches(tmp_path):
    results = tmp_path / "throughput.json"
    command = [sys.executable, SCRIPT, "--megapixels", "1", "--repeats", "1", "--sample", "1", "--results", results]
    subprocess.run(list(map(str, command)), check=True, capture_output=True)
    (row,) = json.loads(results.read_text())["rows"]
    assert row["passes"] == row["MONAI passes"]
    assert row["same class, %"] > 99
    assert row["MP/s"] > 0
