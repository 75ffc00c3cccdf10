"""Where the curves go besides metrics.csv."""

import io
import sys
from types import SimpleNamespace

import numpy as np
import pytest
from lightning.pytorch.loggers import MLFlowLogger, WandbLogger
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

import foveate
from foveate.errors import ConfigError
from foveate.runs.config import RunConfig
from foveate.runs.folder import RunFolder
from foveate.runs.train import prepare_training
from foveate.training import fit
from foveate.training.callbacks import log_image
from toys import make_data_set, toy_config


def train(tmp_path, logger):
    make_data_set(tmp_path / "toy")
    config = RunConfig.parse(toy_config(tmp_path, logger=logger, steps=2, validate_every=2))
    return foveate.train(config, tmp_path / "run", progress=False).path


def test_tensorboard_gets_the_configuration_too(tmp_path):
    run = train(tmp_path, "tensorboard")
    assert list((run / "tensorboard").glob("events.*"))
    assert "fields_of_view" in (run / "tensorboard" / "hparams.yaml").read_text()
    assert (run / "metrics.csv").exists()


def test_tensorboard_gets_pictures_of_input_label_and_prediction(tmp_path):
    run = train(tmp_path, "tensorboard")
    events = EventAccumulator(str(run / "tensorboard"), size_guidance={"images": 0}).Reload()
    (tag,) = events.Tags()["images"]
    assert tag == "val/input, label, prediction"
    (image,) = events.Images(tag)
    assert image.step == 2
    picture = np.asarray(Image.open(io.BytesIO(image.encoded_image_string)))
    side, gap = 32, 4
    assert picture.shape == (4 * (side + gap), 3 * (side + gap), 3)
    config = RunConfig.load(run / "config.yaml")
    batch = next(iter(prepare_training(config, RunFolder(tmp_path / "again")).data.val_dataloader()))
    colors = np.full((256, 3), 128)
    colors[:2] = [one.rgb for one in config.data.classes]
    for place in range(len(picture) // (side + gap)):
        row = picture[place * (side + gap) :][:side]
        scene, label, found = (row[:, k * (side + gap) :][:, :side] for k in range(3))
        assert np.array_equal(label, colors[batch.label[place].numpy()])
        assert {tuple(color) for color in found.reshape(-1, 3)} <= {tuple(color) for color in colors[:2].tolist()}
        gray = batch.patches[place, 0].float().mean(dim=0).numpy()
        assert np.corrcoef(scene.mean(axis=2).ravel(), gray.ravel())[0, 1] > 0.95


class Recorder:
    def __init__(self):
        self.run_id, self.experiment, self.given = "7", self, []

    def log_image(self, *arguments, **options):
        self.given.append((arguments, options))


@pytest.mark.parametrize(
    ("kind", "expected"),
    [
        (WandbLogger, lambda picture: (("val/input, label, prediction", [picture], 5), {})),
        (MLFlowLogger, lambda picture: (("7", picture), {"artifact_file": "val/samples-00000005.png"})),
    ],
)
def test_other_loggers_get_the_picture_by_their_own_methods(kind, expected):
    logger = type("Standin", (Recorder, kind), {"__init__": Recorder.__init__, "run_id": "7", "experiment": None})
    logger, picture = logger.__new__(logger), np.zeros((4, 4, 3), np.uint8)
    logger.given, type(logger).experiment = [], property(lambda self: self)
    log_image(logger, picture, 5)
    assert logger.given == [expected(picture)]


def test_csv_alone(tmp_path):
    run = train(tmp_path, "csv")
    assert not (run / "tensorboard").exists()
    assert (run / "metrics.csv").read_text().count("\n") > 1


@pytest.mark.parametrize("logger", ["wandb", "mlflow"])
def test_a_package_that_is_missing_is_named(tmp_path, logger):
    if logger == "wandb":
        pytest.importorskip("lightning")
    try:
        __import__(logger)
    except ModuleNotFoundError:
        with pytest.raises(ConfigError, match=f"pip install {logger}"):
            train(tmp_path, logger)
    else:
        pytest.skip(f"{logger} is installed")


def test_mlflow_writes_where_it_says_itself(tmp_path, monkeypatch):
    given = {}
    monkeypatch.setitem(sys.modules, "mlflow", SimpleNamespace(get_tracking_uri=lambda: "sqlite:///here.db"))
    monkeypatch.setattr(fit.pl.loggers, "MLFlowLogger", lambda **arguments: given.update(arguments))
    fit._chosen_logger("mlflow", tmp_path / "run", 0)
    assert given == {"run_name": "run", "tracking_uri": "sqlite:///here.db"}


def test_other_names_are_refused(tmp_path):
    with pytest.raises(ConfigError, match="logger"):
        RunConfig.parse(toy_config(tmp_path, logger="neptune"))
