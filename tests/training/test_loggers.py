"""Where the curves go besides metrics.csv."""

import pytest

import foveate
from foveate.errors import ConfigError
from foveate.runs.config import RunConfig
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


def test_other_names_are_refused(tmp_path):
    with pytest.raises(ConfigError, match="logger"):
        RunConfig.parse(toy_config(tmp_path, logger="neptune"))
