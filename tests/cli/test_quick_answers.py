"""What is wrong with what was given is said before anything slow is loaded."""

import subprocess
import sys

import pytest

from toys import make_data_set, toy_config, write_config

# Runs the command, then says on the last line whether it had to load torch for its answer.
SCRIPT = """
import sys
from foveate.cli.app import main
try:
    main()
finally:
    print("torch" in sys.modules)
"""


def answer(*arguments):
    """The exit code, what was said on one line, and whether torch was loaded."""
    command = [sys.executable, "-c", SCRIPT, *map(str, arguments)]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    *_, loaded = result.stdout.splitlines()
    return result.returncode, result.stderr, loaded


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    root = tmp_path_factory.mktemp("quick")
    make_data_set(root / "toy")
    tree = toy_config(root)
    write_config(root / "good.yaml", tree)
    write_config(root / "no-data.yaml", {**tree, "data": {**tree["data"], "folder": "elsewhere"}})
    lists = {key: value for key, value in tree["data"].items() if key != "folder"}
    write_config(root / "no-list.yaml", {**tree, "data": {**lists, "manifest": "none.csv"}})
    (root / "run").mkdir()
    (root / "trained" / "checkpoints").mkdir(parents=True)
    (root / "trained" / "checkpoints" / "last.ckpt").touch()
    write_config(root / "run" / "config.yaml", tree)
    return root


@pytest.mark.parametrize(
    ("command", "said"),
    [
        ("train FOLDER/none.yaml", "no configuration file at FOLDER/none.yaml"),
        ("train FOLDER/good.yaml training.stepz=3", "did you mean 'steps'?"),
        ("train FOLDER/good.yaml training.steps=many", "training.steps"),
        ("train FOLDER/good.yaml foveation.estimator=medium", "unknown estimator 'medium'"),
        ("train FOLDER/no-data.yaml", "no folder FOLDER/elsewhere"),
        ("train FOLDER/no-list.yaml", "no manifest at FOLDER/none.csv"),
        ("train FOLDER/good.yaml network.weights=FOLDER/x.pth", "no encoder weights at FOLDER/x.pth"),
        ("compare FOLDER/no-data.yaml", "no folder FOLDER/elsewhere"),
        ("compare FOLDER/good.yaml --seeds one", "give whole numbers"),
        ("evaluate FOLDER/none", "no configuration file at FOLDER/none/config.yaml"),
        ("evaluate FOLDER/run", "no checkpoint at FOLDER/run/checkpoints/last.ckpt"),
        ("tune FOLDER/none", "no configuration file"),
        ("predict FOLDER/none x.tif --out FOLDER/out", "no configuration file"),
        ("predict FOLDER/run x.tif --out FOLDER/out --set inference.overlapp=1", "did you mean 'overlap'?"),
        ("train FOLDER/good.yaml --out FOLDER/trained", "holds last.ckpt of an earlier run; pass --resume"),
        ("tune FOLDER/run training.stepz=3", "did you mean 'steps'?"),
        ("report FOLDER/none", "no configuration file"),
        ("report FOLDER/run --set inference.overlapp=1", "did you mean 'overlap'?"),
        ("export FOLDER/none model.onnx", "no configuration file"),
        ("export FOLDER/run model.onnx", "no checkpoint at FOLDER/run/checkpoints/last.ckpt"),
        ("push FOLDER/none ada/vessels", "no configuration file"),
        ("init FOLDER/none", "no folder FOLDER/none"),
        ("view FOLDER/none.tif", "nothing at FOLDER/none.tif"),
        ("view FOLDER/run --labels FOLDER/none.png", "nothing at FOLDER/none.png"),
        ("polygons FOLDER/none.tif --out FOLDER/x.geojson", "nothing at FOLDER/none.tif"),
        ("info FOLDER/none.tif", "no image at FOLDER/none.tif"),
        ("convert FOLDER/none.tif FOLDER/out.tif", "no image at FOLDER/none.tif"),
        ("config FOLDER/good.yaml data.clases=[]", "unknown key 'data.clases'"),
        ("config FOLDER/good.yaml training.losses={dice:2}", "write a space after the colon: {dice: 2}"),
    ],
)
def test_mistakes_are_said_before_torch_is_loaded(folder, command, said):
    code, error, loaded = answer(*command.replace("FOLDER", str(folder)).split())
    assert code == 2
    assert said.replace("FOLDER", str(folder)) in error
    assert "Traceback" not in error
    assert loaded == "False"


def test_a_warning_is_a_sentence_without_its_place_in_the_code(folder):
    tree = toy_config(folder)
    write_config(folder / "earlier.yaml", {**tree, "data": {**tree["data"], "cache_mb": 64}})
    code, said, _ = answer("config", folder / "earlier.yaml")
    assert (code, said) == (0, "note: data.cache_mb is no longer a setting; 64 is left out\n")
