"""The animation: one frame for every kept map."""

import io
from itertools import pairwise

import numpy as np
from PIL import Image

from foveate.foveation.estimators import GumbelSoftmax
from foveate.geometry import Window
from foveate.paper import SoftExpectation
from foveate.reporting.report.pictures import animate
from foveate.training import history
from foveate.training.history import FoveationMap, kept_steps

MIXED = SoftExpectation()


def keep(folder, steps, names=("a", "b")):
    folder.mkdir(exist_ok=True)
    for step in steps:
        share = np.full((1, 9, 12), step / 100, np.float32)
        probabilities = np.concatenate([share, 1 - share])
        maps = [FoveationMap(step, name, Window(0, 0, 90, 120), probabilities) for name in names]
        history.write_maps(folder / f"step-{step:08d}.npz", maps)
    return kept_steps(folder)


def test_there_is_a_frame_for_every_kept_map(tmp_path):
    animation = animate(keep(tmp_path / "maps", [0, 10, 20, 100]), (64, 128), MIXED)
    with Image.open(io.BytesIO(animation.gif)) as gif:
        assert gif.n_frames == animation.frames == 4
        frames = []
        for i in range(4):
            gif.seek(i)
            frames.append(np.asarray(gif.convert("RGB")).astype(int))
    assert animation.steps == (0, 100)
    assert all((one != other).any() for one, other in pairwise(frames))
    with Image.open(io.BytesIO(animation.last_frame)) as last:
        assert np.abs(np.asarray(last).astype(int) - frames[-1]).mean() < 3
        assert np.asarray(last).std() > 5


def test_a_value_has_one_colour_in_all_frames(tmp_path):
    animation = animate(keep(tmp_path / "maps", [50, 51, 100], names=("a",)), (64, 128), MIXED)
    with Image.open(io.BytesIO(animation.gif)) as gif:
        middle = []
        for i in range(3):
            gif.seek(i)
            middle.append(np.asarray(gif.convert("RGB"))[gif.height // 2, gif.width // 3].astype(int))
    assert np.abs(middle[0] - middle[1]).max() < 12
    assert np.abs(middle[0] - middle[2]).max() > 50


def test_without_maps_there_is_no_animation(tmp_path):
    assert animate(kept_steps(tmp_path), (64, 128), MIXED) is None


def test_what_is_passed_is_shown_and_not_what_the_policy_expects(tmp_path):
    maps = keep(tmp_path / "maps", [40, 45], names=("a",))
    frames = [animate(maps, (64, 128), estimator) for estimator in (MIXED, GumbelSoftmax())]
    pixels = [np.asarray(Image.open(io.BytesIO(one.last_frame)).convert("RGB")) for one in frames]
    middles = [one[one.shape[0] // 2, one.shape[1] // 3].tolist() for one in pixels]
    assert middles[1] == [253, 231, 36]  # of 0.45 and 0.55 the wider one is passed everywhere
    assert middles[0] != middles[1]


def test_the_strip_holds_every_frame(tmp_path):
    animation = animate(keep(tmp_path / "maps", [0, 50, 100]), (64, 128), MIXED)
    width, height = animation.shape
    with Image.open(io.BytesIO(animation.strip)) as strip, Image.open(io.BytesIO(animation.gif)) as gif:
        assert strip.size == (width, 3 * height)
        pixels = np.asarray(strip.convert("RGB"))
        for i in range(3):
            gif.seek(i)
            frame = np.asarray(gif.convert("RGB")).astype(int)
            assert np.abs(pixels[i * height : (i + 1) * height] - frame).max() <= 1
