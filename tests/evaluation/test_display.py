"""Results in a notebook."""

import io

import numpy as np
import torch
from matplotlib.backends.backend_agg import FigureCanvasAgg
from PIL import Image

from foveate.evaluation.evaluate import Evaluation
from foveate.metrics import scores_from
from foveate.texts import table_html

COST = {"passes_per_megapixel": 250.0, "seconds": 3.0}


def evaluation(names=("sea", "<i>land</i>")):
    return Evaluation(scores_from(torch.tensor([[9, 1], [0, 0]]), list(names)), dict(COST), ())


def test_an_evaluation_shows_its_scores():
    shown = evaluation()._repr_html_()
    assert "90.0" in shown
    assert "250 passes per megapixel" in shown
    assert "&lt;i&gt;land" in shown
    assert "<i>" not in shown
    assert "nan" not in shown


def test_an_evaluation_is_drawn():
    figure, file = evaluation(["$x", "_y"]).plot(), io.BytesIO()
    assert isinstance(figure.canvas, FigureCanvasAgg)
    figure.savefig(file)
    with Image.open(file) as picture:
        assert np.asarray(picture).std() > 10


def test_all_text_of_a_table_is_escaped():
    table = table_html(["<a>"], [["<b>"]], "<c>")
    assert not {"<a>", "<b>", "<c>"} & {table[i : i + 3] for i in range(len(table))}
