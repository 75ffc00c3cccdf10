"""The bound on memory holds, and blocks and batches are made to fit."""

import json
import os
import subprocess
import sys

import pytest
import torch
from predict_toys import CONFIG, toy_segmenter, toy_source
from torch import nn

from foveate.devices import devices_of
from foveate.errors import ConfigError
from foveate.inference.config import InferenceConfig
from foveate.inference.memory import MemoryModel, fitted, parse_memory
from foveate.inference.runner import peak_bytes
from foveate.texts import size_text


@pytest.mark.parametrize(
    ("text", "count"),
    [("4GB", 4 * 10**9), ("4 GiB", 2**32), ("500m", 5 * 10**8), ("2.5GiB", 5 * 2**29), ("1024", 1024), ("1kb", 1000)],
)
def test_sizes_of_memory_are_read(text, count):
    assert parse_memory(text) == count


@pytest.mark.parametrize("text", ["", "lots", "-3GB", "0GB", "3 GBit", "4PB"])
def test_other_sizes_are_refused(text):
    with pytest.raises(ConfigError, match="such as 4GB"):
        parse_memory(text)


def test_sizes_are_written_for_people():
    assert size_text(1.3 * 2**30) == "1.3 GiB"
    assert size_text(900 * 2**20) == "900 MiB"


def test_live_tensors_are_counted():
    def work():
        a = torch.zeros(1000)  # 4000 bytes
        b = a + 1  # and as many
        del a
        return b.view(10, 100) * 2  # a view is none; a is gone

    assert peak_bytes(work) == 8000
    network = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1, bias=False), nn.ReLU(inplace=True))
    assert peak_bytes(lambda: network(torch.zeros(1, 3, 16, 16))) == (3 + 8) * 256 * 4


def model(**changes):
    config = CONFIG.model_copy(update=changes)
    return MemoryModel.of(toy_segmenter().eval(), toy_source(), config, 4), config


@pytest.mark.parametrize("planner", ["per_target", "pyramid"])
def test_more_needs_more(planner):
    known, _ = model(planner=planner)
    sides = [known.bound(side, 4).main for side in (256, 512, 1024, 4096)]
    batches = [known.bound(256, batch).main for batch in (1, 4, 64, 1024)]
    assert sides == sorted(set(sides))
    assert batches == sorted(batches)
    assert batches[0] < batches[-1]
    assert known.bound(256, 1).device == 0
    assert known.bound(256, 1).main > known.base > 2**26


def test_blocks_and_batches_are_halved_until_they_fit():
    known, _ = model()
    wanted = InferenceConfig(block_size=4096, batch_size=64)
    same = fitted(known, wanted, toy_segmenter(), 2**60)
    assert (same.block_size, same.batch_size) == (4096, 64)
    limit = known.bound(1024, 32).main
    found = fitted(known, wanted, toy_segmenter(), limit)
    assert known.bound(found.block_size, found.batch_size).main <= limit
    assert found.block_size % 8 == 0
    assert found.block_size * found.batch_size >= 1024 * 32 // 2
    with pytest.raises(ConfigError, match=r"95 MiB of memory for each process is too little.* about .*iB are needed"):
        fitted(known, wanted, toy_segmenter(), 10**8)


def test_devices_are_read(monkeypatch):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    assert devices_of("cpu:3") == ["cpu"] * 3
    assert devices_of("cpu") == ["cpu"]
    assert len(devices_of("auto")) == 1
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 3)
    assert devices_of("auto") == devices_of("cuda") == devices_of("0-2") == ["cuda:0", "cuda:1", "cuda:2"]
    assert devices_of("cuda:2,0") == devices_of("cuda:2,cuda:0") == devices_of("2,0") == ["cuda:2", "cuda:0"]
    assert devices_of("1") == ["cuda:1"]
    for text in ("cuda:3", "4", "cuda:1,1", "0-3", "2-1"):
        with pytest.raises(ConfigError, match="3 CUDA devices were found"):
            devices_of(text)
    for text in ("-1", "cpu:0", "gpu", "cpu:two", ""):
        with pytest.raises(ConfigError, match="allowed are auto"):
            devices_of(text)


MEASURE = """
import json, sys, torch
from pathlib import Path
import numpy as np
from foveate import FoveatedSegmenter, GumbelSoftmax, ScaleSet, build_network, open_image
from foveate.data.channels import Normalisation
from foveate.data.sections import ClassConfig
from foveate.inference.config import InferenceConfig
from foveate.devices import peak_memory_mb
from foveate.inference.memory import MemoryModel
from foveate.texts import size_text
from foveate.inference.source import PixelSource
from foveate.inference.job import Prediction
from foveate.inference.assemble import PredictionFiles
from foveate.inference.pipeline import ready_to_predict
planner, block, batch, classes = sys.argv[2], int(sys.argv[3]), int(sys.argv[4]), int(sys.argv[5])
torch.set_num_threads(int(sys.argv[6]))
config = InferenceConfig(
    block_size=block, batch_size=batch, planner=planner, overlap=0, outputs=("classes", "confidence", "foveation")
)
options = {"weights": None, "encoder_depth": 3, "decoder_channels": [32, 16, 8]}
network = build_network("unet", "resnet18", classes=classes, **options)
model = FoveatedSegmenter(network, ScaleSet(64, (64, 128, 256)), overview_downsample=32, estimator=GumbelSoftmax())
model = ready_to_predict(model, torch.device("cpu"))
names = [ClassConfig(name=str(i), color="#808080") for i in range(classes)]
with open_image(sys.argv[1]) as image:
    source = PixelSource(image, [0, 1, 2], Normalisation(255.0, (0.5,) * 3, (0.5,) * 3), torch.device("cpu"))
    known = MemoryModel.of(model, source, config, classes)
    files = PredictionFiles.in_folder(Path(sys.argv[1] + ".out"), "out")
    Prediction(model, source, files, classes=names, config=config).run()
    bound = known.bound(block, batch).main / 2**20
    print(json.dumps({"base": known.base / 2**20, "peak": peak_memory_mb(), "bound": bound}))
"""


@pytest.mark.slow  # a minute each
@pytest.mark.parametrize(
    ("planner", "block", "batch", "classes", "threads"),
    [
        ("per_target", 1024, 16, 3, 1),
        ("per_target", 512, 64, 3, 1),
        ("per_target", 512, 64, 3, 2),
        ("per_target", 1024, 4, 20, 1),
        ("pyramid", 1024, 16, 3, 1),
    ],
)
def test_the_bound_holds_in_a_process(tmp_path, planner, block, batch, classes, threads):
    """And is not far above what is needed."""
    rasterio = pytest.importorskip("rasterio")
    path = tmp_path / "sparse.tif"
    profile = {"driver": "GTiff", "dtype": "uint8", "count": 3, "tiled": True, "blockxsize": 256, "blockysize": 256}
    transform = rasterio.Affine.scale(2.0)
    with rasterio.open(path, "w", width=2100, height=2100, SPARSE_OK=True, transform=transform, **profile):
        pass
    done = subprocess.run(
        [sys.executable, "-c", MEASURE, str(path), planner, *map(str, (block, batch, classes, threads))],
        env=os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join(sys.path)},
        capture_output=True,
        text=True,
        check=True,
    )
    found = json.loads(done.stdout.splitlines()[-1])
    assert found["peak"] <= found["bound"], found
    assert found["bound"] - found["base"] <= 4 * (found["peak"] - found["base"]) + 500, found
