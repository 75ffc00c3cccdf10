"""Each pass is made once for all the blocks that it counts in, in full batches, and that changes no bit."""

import math
import time
from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from foveate.data.channels import Normalisation
from foveate.data.readers.array import ArrayReader
from foveate.errors import ImageReadError
from foveate.foveation.estimators import Ensemble, FixedScale, Mixture
from foveate.geometry import Size, Window, tile_starts
from foveate.inference.config import InferenceConfig
from foveate.inference.pipeline import finished_blocks, ready_to_predict
from foveate.inference.plan import BlockGrid, blocks_abreast
from foveate.inference.runner import batches_at_once, copies_of
from foveate.inference.source import PixelSource
from foveate.paper import SoftExpectation
from foveate.patches import ScaleSet
from foveate.segmenter import FoveatedSegmenter

CPU = torch.device("cpu")
PLAIN = Normalisation(1.0, (0.0,) * 3, (1.0,) * 3)
SIZE = Size(90, 100)


class Counting(nn.Conv2d):
    """A network that knows how many batches it saw."""

    batches = 0

    def __deepcopy__(self, memo):
        return self  # counts what every thread passes

    def forward(self, x):
        self.batches += 1
        return super().forward(x)


def model(estimator):
    torch.manual_seed(1)
    network = Counting(3, 4, 3, padding=1)
    scales = ScaleSet(16, (16, 32))
    return ready_to_predict(FoveatedSegmenter(network, scales, estimator=estimator, overview_downsample=4), CPU)


def source(reader=ArrayReader):
    return PixelSource(
        reader(np.random.default_rng(0).random((3, SIZE.height, SIZE.width), np.float32)), [0, 1, 2], PLAIN, CPU
    )


def predicted(segmenter, order, config):
    """Logits of the image, and the passes that are counted."""
    whole, passes = torch.zeros(4, SIZE.height, SIZE.width), 0
    grid = BlockGrid(SIZE, config.block_size)
    for done in finished_blocks(segmenter, source(), config, blocks=[grid[number] for number in order]):
        whole[:, *done.window.within(Window.of(SIZE))] = done.logits
        passes += done.passes
    return whole, passes


def targets(overlap):
    stride = round(16 * (1 - overlap))
    return math.prod(len(tile_starts(length, 16, stride)) for length in (SIZE.height, SIZE.width))


@pytest.mark.parametrize(
    ("estimator", "looks", "overlap"),
    [(FixedScale(index=1), 1, 0.25), (SoftExpectation(), 1, 0), (Mixture(top=None), 2, 0), (Ensemble(), 2, 0)],
)
def test_no_pass_is_made_twice_and_no_place_in_a_batch_is_lost(estimator, looks, overlap):
    segmenter, config = model(estimator), InferenceConfig(block_size=64, batch_size=7, overlap=overlap)
    _, passes = predicted(segmenter, range(4), config)
    assert passes == looks * targets(overlap)
    assert segmenter.network.batches == math.ceil(passes / 7)


@pytest.mark.parametrize("estimator", [FixedScale(), SoftExpectation(), Mixture(top=None)], ids=repr)
@pytest.mark.parametrize(("block", "overlap"), [(16, 0.7), (32, 0.25)])
def test_the_order_of_blocks_and_what_is_kept_change_no_bit(estimator, block, overlap):
    config = InferenceConfig(block_size=block, batch_size=7, overlap=overlap)
    segmenter, count = model(estimator), len(BlockGrid(SIZE, block))
    whole, passes = predicted(segmenter, range(count), config)
    again, as_many = predicted(segmenter, np.random.default_rng(3).permutation(count).tolist(), config)
    assert torch.equal(again, whole)
    assert as_many == passes


def test_a_block_that_cannot_be_read_fails_at_its_turn_only():
    class Torn(ArrayReader):
        def read(self, window, size=None):
            if window.top > 20:
                raise ImageReadError("torn")
            return super().read(window, size)

    config, failed = InferenceConfig(block_size=64, batch_size=7), []
    found = finished_blocks(
        model(FixedScale()), source(Torn), config, on_unreadable=lambda window, error: failed.append(window)
    )
    assert [block.window.top for block in found] == [0, 0]
    assert [window.top for window in failed] == [64, 64]


@given(st.integers(1, 20), st.integers(1, 20), st.integers(1, 8))
def test_bands_hold_every_block_once_and_are_no_wider(rows, cols, width):
    grid = BlockGrid(Size(10 * rows, 10 * cols), 10)
    order = sorted(range(len(grid)), key=lambda number: grid.place_in_bands(number, width))
    assert sorted(order) == list(range(rows * cols))
    for before, after in pairwise(order):
        one, other = grid[before], grid[after]
        right = other.left == one.left + 10 and other.top == one.top
        down = other.top == one.top + 10 and one.left - 10 * width < other.left <= one.left
        assert right or down or other.top == 0


def test_wider_strides_and_blocks_keep_more_side_by_side():
    assert blocks_abreast(2048, 192, 256, 1) == 4
    assert blocks_abreast(2048, 192, 256, 3) == 1
    assert blocks_abreast(4096, 192, 256, 1) == 10
    assert blocks_abreast(16, 3, 16, 4) == 1


class Remembering(nn.Module):
    """A network whose layers meet in something that it keeps, as with hooks: two batches at a time would mix."""

    def __init__(self):
        super().__init__()
        self.first, self.last = nn.Conv2d(3, 4, 3, padding=1), nn.Conv2d(4, 4, 3, padding=1)
        self.first.register_forward_hook(self._keep)
        self.kept = None

    def _keep(self, module, given, found):
        self.kept = found

    def forward(self, x):
        self.first(x)
        time.sleep(0.005)  # the other batch is made meanwhile
        return self.last(self.kept)


class Alone(Remembering):
    """And that cannot be copied."""

    def __deepcopy__(self, memo):
        raise TypeError("one is enough")


@pytest.mark.parametrize("settings", [{}, {"planner": "pyramid", "budget": 3000.0}])  # with a budget after a survey
@pytest.mark.parametrize("network", [Remembering, Alone])
def test_batches_beside_one_another_give_the_same_bits(network, settings):
    torch.manual_seed(1)
    segmenter = FoveatedSegmenter(network(), ScaleSet(16, (16, 32)), estimator=Ensemble(), overview_downsample=4)
    ready_to_predict(segmenter, CPU)
    config = InferenceConfig(block_size=64, batch_size=3, **settings)
    threads, found = torch.get_num_threads(), []
    try:
        for count in (1, 2):
            torch.set_num_threads(count)
            found.append(predicted(segmenter, range(4), config))
            assert torch.get_num_threads() == count
    finally:
        torch.set_num_threads(threads)
    assert torch.equal(found[0][0], found[1][0])
    assert found[0][1] == found[1][1]


def test_a_second_batch_takes_no_second_set_of_weights():
    one = model(FixedScale(index=1))
    copies = copies_of(one, CPU)
    assert len(copies) == batches_at_once(CPU) == 2  # conftest gives two threads
    for mine, other in zip(one.state_dict().values(), copies[1].state_dict().values(), strict=True):
        assert mine.data_ptr() == other.data_ptr()
    assert batches_at_once(torch.device("cuda")) == 1
