"""What `pip install` gets: the wheel holds the package whole, and nothing else."""

import zipfile
from email.parser import Parser
from pathlib import Path

import pytest
from hatchling.builders.wheel import WheelBuilder

ROOT = Path(__file__).parent.parent
PACKAGE = ROOT / "src" / "foveate"


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    (path,) = WheelBuilder(str(ROOT)).build(directory=str(tmp_path_factory.mktemp("dist")), versions=["standard"])
    with zipfile.ZipFile(path) as archive:
        yield archive


def test_it_holds_every_file_of_the_package_and_nothing_else(wheel):
    files = {path for path in PACKAGE.rglob("*") if path.is_file() and "__pycache__" not in path.parts}
    there = {name for name in wheel.namelist() if ".dist-info/" not in name}
    assert there == {path.relative_to(PACKAGE.parent).as_posix() for path in files}
    kinds = {Path(name).suffix for name in there}
    assert {".html", ".css", ".js", ".yaml", ".typed"} <= kinds, "pages, viewer, demonstration and types"


def metadata(wheel, name):
    (path,) = (one for one in wheel.namelist() if one.endswith(f".dist-info/{name}"))
    return wheel.read(path).decode()


def test_it_says_what_it_needs(wheel):
    told = Parser().parsestr(metadata(wheel, "METADATA"))
    assert told["Name"] == "foveate"
    assert told["Requires-Python"] == ">=3.11"
    assert {"demo", "vector", "viewer", "onnx", "wsi", "zarr", "dask", "prepare"} <= set(told.get_all("Provides-Extra"))
    base = [line for line in told.get_all("Requires-Dist") if "extra ==" not in line]
    assert any(line.startswith("torch>=") for line in base)
    assert not any(line.startswith(("onnx", "zarr", "starlette", "distributed")) for line in base)
    assert "foveate = foveate.cli.app:main" in metadata(wheel, "entry_points.txt")
    assert "MIT" in metadata(wheel, "licenses/LICENSE")
