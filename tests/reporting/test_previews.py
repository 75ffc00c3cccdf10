import inspect
import json
import re

import pytest
import torch
from matplotlib.figure import Figure

import foveate
from foveate.build import build_segmenter
from foveate.geometry import Window
from foveate.reporting.previews import PredictionResult
from foveate.runs import predict as plain
from foveate.runs.config import RunConfig
from foveate.runs.folder import TrainedRun
from foveate.runs.predict_array import ArrayPrediction
from toys import shapes, toy_config, write_image


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    config = RunConfig.parse(toy_config(tmp_path_factory.mktemp("result-run")), source="test")
    torch.manual_seed(0)
    segmenter = build_segmenter(config.foveation, config.network, classes=2, in_channels=3).eval()
    return TrainedRun(config, segmenter, torch.device("cpu"))


@pytest.fixture(scope="module")
def result(run, tmp_path_factory):
    folder = tmp_path_factory.mktemp("result")
    image, label = shapes(3)
    write_image(folder / "<a&b>.png", image)
    write_image(folder / "label.png", label)
    return foveate.predict(run, folder / "<a&b>.png", folder / "out")


def test_it_is_the_summary_that_lies_on_disk(result):
    stored = json.loads(result.files.summary.read_text(encoding="utf-8"))
    assert isinstance(result, PredictionResult)
    assert json.loads(json.dumps(result)) == stored
    assert result == dict(result)


def test_it_knows_where_the_results_lie(result, tmp_path):
    assert result.files.classes.exists()
    assert result.files.classes.parent.name == "out"


def test_a_notebook_shows_a_table_and_a_picture_and_no_file_name_breaks_it(result):
    page = result._repr_html_()
    assert "150" in page
    assert "170" in page
    assert "&lt;a&amp;b&gt;.png" in page
    assert "<a&b>" not in page
    assert 'src="data:image/png;base64,' in page
    shares = [float(share) for share in re.findall(r"([\d.]+) %</td>", page)]
    assert sum(shares) == pytest.approx(100, abs=0.2)


def test_without_the_foveation_map_there_is_a_table_only(result, run, tmp_path):
    moved = PredictionResult(result, result.image, plain.files_of(result.image, tmp_path), run.config)
    assert not moved.drawable
    assert "<table>" in moved._repr_html_()
    assert "<img" not in moved._repr_html_()


def test_blocks_that_could_not_be_read_are_told(result, run):
    torn = {**result, "failed_blocks": [{"window": [0, 0, 64, 64], "reason": "torn"}]}
    assert "1 block could not be read" in PredictionResult(torn, result.image, result.files, run.config)._repr_html_()


def test_the_plot_shows_a_window_and_labels(result):
    figure = result.plot(Window(0, 0, 64, 80), labels=result.files.classes)
    titles = [axes.get_title() for axes in figure.axes]
    assert isinstance(figure, Figure)
    assert titles[:4] == ["image", "labels", "prediction", "field of view of the passes"]
    assert figure.axes[0].get_images()[0].get_array().shape == (64, 80, 3)


def test_the_public_function_takes_what_the_plain_one_takes():
    signature = inspect.signature(foveate.predict)
    assert list(signature.parameters)[:3] == list(inspect.signature(plain.predict).parameters)[:3]
    assert signature.return_annotation == PredictionResult | ArrayPrediction
