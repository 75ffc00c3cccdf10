"""What each way to start Foveate imports: what it does not need, it does not wait for."""

import json
import subprocess
import sys

import pytest

from toys import shapes, write_image

# What only training, scores, statistics and pictures need.
HEAVY = {"lightning", "torchmetrics", "matplotlib", "scipy.stats", "scipy.signal", "tensorboard", "distributed"}
TORCH = {"torch", "numpy", "rasterio", "scipy", "pydantic"}
# What comes with networks by name; one's own need none of it, nor does a command without a network.
NETWORKS = {"segmentation_models_pytorch", "timm", "torchvision", "torch._dynamo"}
REPORT = "import foveate.reporting.report.comparison_report"


def loaded(statement: str) -> set[str]:
    """Names of all modules that a fresh interpreter has imported after a statement."""
    code = f"import json, sys\n{statement}\nsys.stdout = sys.__stdout__\nprint(json.dumps(sorted(sys.modules)))"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return set(json.loads(result.stdout.splitlines()[-1]))


@pytest.mark.parametrize(
    "statement",
    [
        "import foveate",
        "import foveate.cli.app",
        "from typer.testing import CliRunner; from foveate.cli.app import app; CliRunner().invoke(app, ['--help'])",
    ],
    ids=["import", "command", "help"],
)
def test_nothing_heavy_is_needed_to_import_foveate_or_to_show_its_help(statement):
    assert not loaded(statement) & (HEAVY | TORCH)


@pytest.mark.parametrize(
    "statement",
    ["import foveate; foveate.predict; foveate.load; foveate.open_image", "import foveate.runs.predict", REPORT],
    ids=["public", "command", "report"],
)
def test_predictions_and_reports_import_neither_training_nor_plotting(statement):
    assert not loaded(statement) & (HEAVY | NETWORKS)


def test_a_measured_network_does_not_load_the_compiler():
    statement = (
        "import torch; from foveate.inference.runner import peak_bytes\n"
        "assert peak_bytes(lambda: torch.ones(1000) + 1) == 8000"
    )
    assert "torch._dynamo" not in loaded(statement)


@pytest.mark.parametrize("command", ["info", "convert", "view"])
def test_a_command_without_a_network_imports_none(command, tmp_path):
    image, made = write_image(tmp_path / "image.png", shapes(0)[0]), str(tmp_path / "made.tif")
    arguments = [command, str(image), *{"info": [], "convert": [made], "view": ["--export", made]}[command]]
    statement = (
        "from typer.testing import CliRunner; from foveate.cli.app import app\n"
        f"result = CliRunner().invoke(app, {arguments!r}); assert result.exit_code == 0, result.output"
    )
    assert not loaded(statement) & NETWORKS
