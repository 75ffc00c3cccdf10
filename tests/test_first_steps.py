"""What the README promises: from a folder of images and polygons to a map, a page and an ONNX file that agree."""

import json
import re
import subprocess
import sys

import numpy as np
import pytest
from rasterio.features import shapes as outlines_of

from foveate.data.readers import open_image
from foveate.geometry import Window
from toys import shapes, write_image

QUICK = [
    "training.steps=80", "training.validate_every=80", "training.warmup_steps=5", "training.locations_per_step=4",
    "training.learning_rate=0.003", "network.weights=none", "network.architecture=unet", "network.encoder=resnet18",
    "network.options={encoder_depth: 3, decoder_channels: [16, 8, 8]}", "data.workers=0",
]  # fmt: skip


def images_with_polygons(folder):
    (folder / "images").mkdir(parents=True)
    (folder / "masks").mkdir()
    for seed, name in enumerate(("north", "old town", "harbour")):
        image, label = shapes(seed)
        write_image(folder / "images" / f"{name}.tif", image)
        features = [
            {"type": "Feature", "properties": {"classification": {"name": "disc"}}, "geometry": outline}
            for outline, _ in outlines_of(label[0], mask=label[0] > 0)
        ]
        tree = {"type": "FeatureCollection", "features": features}
        (folder / "masks" / f"{name}.geojson").write_text(json.dumps(tree))


@pytest.mark.slow
def test_the_six_commands_of_the_readme_give_results_that_agree(tmp_path):
    onnxruntime = pytest.importorskip("onnxruntime", reason="the extra onnx is not installed")
    images_with_polygons(tmp_path / "data" / "mine")

    def foveate(*words):
        command = [sys.executable, "-m", "foveate", *words]
        done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        return done.stdout

    assert "next: foveate train mine.yaml" in foveate("init", "data/mine")
    said = foveate("train", "mine.yaml", *QUICK)
    best = float(re.search(r"best validation mIoU %\s*│\s*([\d.]+)", said)[1])
    assert best > 70
    assert "next: foveate predict runs/mine" in foveate("tune", "runs/mine")
    foveate("predict", "runs/mine", "data/mine/images/old town.tif", "--out", "predictions")
    found = class_map(tmp_path / "predictions" / "old town.classes.tif")
    assert (found == shapes(1)[1][0]).mean() > 0.9
    foveate("view", "data/mine/images/old town.tif", "predictions", "--labels",
            "data/mine/masks/old town.geojson", "--export", "page")  # fmt: skip
    page = json.loads((tmp_path / "page" / "foveate-view.json").read_text())
    assert {"image", "labels", "classes", "errors", "windows"} <= {layer["kind"] for layer in page["layers"]}
    foveate("export", "runs/mine", "model.onnx")
    views = sorted(int(path.stem.split("-")[1].removesuffix("px")) for path in tmp_path.glob("model-*px.onnx"))
    file = tmp_path / f"model-{views[0]}px.onnx"
    session = onnxruntime.InferenceSession(str(file))
    assert agreement(session, shapes(1)[0], found) > 0.9


def class_map(path):
    with open_image(path) as reader:
        return reader.read(Window.of(reader.size))[0]


def agreement(session, image, classes):
    """Share of pixels of a patch that the exported network and the class map call the same."""
    given = session.get_inputs()[0]
    side = given.shape[-1]
    patch = image[None, :, :side, :side].astype(np.float32) / 255
    probabilities = session.run(None, {given.name: patch})[0]
    return (probabilities[0].argmax(axis=0) == classes[:side, :side]).mean()
