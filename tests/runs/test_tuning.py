"""What tuning computes from samples is what the planner does."""

import numpy as np
import pytest
import torch
from torch import nn

from foveate.cascade import CascadeSegmenter
from foveate.data.channels import Normalisation
from foveate.data.readers.array import ArrayReader
from foveate.foveation.estimators import CoarseFirst
from foveate.geometry import Size, Window
from foveate.inference.config import InferenceConfig
from foveate.inference.pipeline import finished_blocks, ready_to_predict
from foveate.inference.source import PixelSource
from foveate.looks.pyramid import PyramidLook
from foveate.membership import Exclusive
from foveate.patches import ScaleSet
from foveate.runs.tune import Simulation, sample_labels, sample_look, sampling_step
from foveate.runs.tuned import Candidate, ways_down
from foveate.segmenter import FoveatedSegmenter

CPU = torch.device("cpu")
CLOSE, WIDE = PyramidLook(16, 1.0), PyramidLook(64, 1.0)
BY_CLASS = (0.4, 0.6)

IGNORED = 255


class _Mask:
    """A mask held in memory."""

    def __init__(self, ids):
        self._ids = ids

    def read(self, window):
        rows, cols = slice(window.top, window.bottom), slice(window.left, window.right)
        found = self._ids[rows, cols]
        missing = (window.height - found.shape[0], window.width - found.shape[1])
        return np.pad(found, [(0, side) for side in missing], constant_values=IGNORED)


@pytest.fixture
def model():
    torch.manual_seed(1)
    network = nn.Conv2d(3, 4, 3, padding=1)
    scales = ScaleSet(16, (16, 32, 64))
    return ready_to_predict(FoveatedSegmenter(network, scales, estimator=CoarseFirst(), overview_downsample=4), CPU)


@pytest.fixture
def source():
    pixels = np.random.default_rng(0).random((3, 150, 203), dtype=np.float32)
    return PixelSource(ArrayReader(pixels), [0, 1, 2], Normalisation(1.0, (0.0,) * 3, (1.0,) * 3), CPU)


@pytest.fixture
def ids():
    found = np.random.default_rng(1).integers(0, 4, (150, 203)).astype(np.uint8)
    found[:, :70] = IGNORED
    return found


def sampled(model, source, ids, ways, step, block=128):
    config = InferenceConfig(block_size=block)
    image = sample_labels(_Mask(ids), source.size, block, step=step, membership=Exclusive(IGNORED))
    simulation = Simulation([image], target=16)
    for way in ways:
        simulation.seen[0, way] = sample_look(model, source, image, way, config, 4)
    return image, simulation


@pytest.fixture
def cascade():
    torch.manual_seed(1)
    network = nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.ReLU(), nn.Conv2d(4, 4, 3, padding=1))
    made = CascadeSegmenter(network, 16, (64, 32, 16), overview_downsample=4)
    for weight in made.network.entrances.parameters():
        nn.init.normal_(weight, std=2.0)
    return ready_to_predict(made, CPU)


@pytest.mark.parametrize("budget", ["all", 1500.0, 3000.0])
@pytest.mark.parametrize("looks", [(CLOSE, WIDE), (PyramidLook(16, 1.0), PyramidLook(32, 1.0), WIDE)])
def test_a_cascade_is_sampled_way_by_way_and_counted_as_it_is_predicted(cascade, source, ids, budget, looks):
    candidate = Candidate(looks, tuple(3.0**i for i in reversed(range(len(looks)))), cascaded=True)
    _, simulation = sampled(cascade, source, ids, candidate.made, step=1)
    found, made = simulation.outcome(candidate, budget)
    counts, passes = counted(cascade, source, ids, looks=looks, fusion=candidate.fusion, budget=budget)
    # Where two pass maps differ it is on the verge; blocks without a label are left out of the samples.
    assert abs(made - passes) <= (0 if budget == "all" else 8)
    assert np.abs(found.numpy() - counts).sum() <= (40 if budget == "all" else 2000)


def test_ways_down_a_cascade_look_once_at_each_view_with_smaller_parts_the_closer():
    ways = ways_down((16, 32, 64))
    assert {looks for looks in ways if len(looks) == 1} == {
        (PyramidLook(view, keep),) for view in (16, 32, 64) for keep in (0.5, 0.75, 1.0)
    }
    assert (PyramidLook(16, 0.5), PyramidLook(64, 0.5)) in ways
    assert (PyramidLook(16, 0.5), PyramidLook(32, 1.0), PyramidLook(64, 1.0)) in ways
    for looks in ways:
        views, kept = [look.view for look in looks], [look.view * look.keep for look in looks]
        assert views == sorted(set(views))
        assert kept == sorted(kept)


def counted(model, source, ids, **options):
    """Counts and passes of the planner itself."""
    counts, passes = np.zeros((4, 4), int), 0
    whole = np.full((150, 203), IGNORED)
    config = InferenceConfig(planner="pyramid", block_size=128, **options)
    for done in finished_blocks(model, source, config):
        whole[done.window.within(Window.of(source.size))] = done.logits.argmax(0).numpy()
        passes += done.passes
    known = ids != IGNORED
    np.add.at(counts, (ids[known].astype(int), whole[known].astype(int)), 1)
    return counts, passes


@pytest.mark.parametrize("fusion", [(10.0, 1.0), BY_CLASS])
@pytest.mark.parametrize("budget", ["all", 1500.0])
def test_every_pixel_sampled_is_the_planners_own_count(model, source, ids, fusion, budget):
    candidate = Candidate((CLOSE, WIDE), fusion)
    _, simulation = sampled(model, source, ids, candidate.made, step=1)
    found, made = simulation.outcome(candidate, budget)
    counts, passes = counted(model, source, ids, looks=candidate.looks, fusion=fusion, budget=budget)
    assert abs(made - passes) <= (0 if budget == "all" else 2)
    difference = np.abs(found.numpy() - counts).sum()
    assert difference <= (40 if budget == "all" else 1200)  # of 19950 pixels; half precision, and places on the verge
    assert int(found.sum()) == (ids != IGNORED).sum()


def test_fewer_samples_are_those_of_all_at_every_step(model, source, ids):
    (every, all_seen), (fourth, seen) = (sampled(model, source, ids, [(WIDE,)], step) for step in (1, 4))
    assert torch.equal(fourth.labels, every.labels[2::4, 2::4])
    known = fourth.labels != IGNORED
    expected = all_seen.seen[0, (WIDE,)][:, 2::4, 2::4]
    torch.testing.assert_close(seen.seen[0, (WIDE,)][:, known], expected[:, known], atol=1e-3, rtol=0)


def test_the_step_grows_with_the_images():
    assert sampling_step([Size(1000, 1000)], 5, 8) == 4
    sizes = [Size(60_000, 60_000)] * 3
    step = sampling_step(sizes, 5, 8)
    assert 2 * 5 * 8 * 3 * 60_000**2 / step**2 <= 2**30
