import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from foveate.data.channels import Normalisation
from foveate.data.readers.array import ArrayReader
from foveate.errors import GeometryError
from foveate.foveation.estimators import Ensemble, FixedScale, Mixture
from foveate.geometry import Size, Window
from foveate.inference.config import InferenceConfig
from foveate.inference.field import FoveationField
from foveate.inference.pipeline import finished_blocks, ready_to_predict
from foveate.inference.plan import BlockGrid
from foveate.inference.source import PixelSource
from foveate.inference.stitch import Canvases, Stitcher
from foveate.looks.passes import Passes
from foveate.paper import RandomScale, SoftExpectation, StraightThroughArgmax
from foveate.patches import ScaleSet
from foveate.patches.extraction import Windows, overview_of
from foveate.segmenter import FoveatedSegmenter

PLAIN = Normalisation(1.0, (0.0, 0.0, 0.0), (1.0, 1.0, 1.0))
CPU = torch.device("cpu")


def source(pixels):
    return PixelSource(ArrayReader(pixels), [0, 1, 2], PLAIN, CPU)


def segmenter(estimator, network=None, views=(16, 32, 64), downsample=4):
    torch.manual_seed(1)
    model = FoveatedSegmenter(
        network or nn.Conv2d(3, 4, 3, padding=1),
        ScaleSet(16, views),
        estimator=estimator,
        overview_downsample=downsample,
    )
    return ready_to_predict(model, CPU)


def predicted(model, pixels, **options):
    image = source(pixels)
    whole, count = None, np.zeros(pixels.shape[1:], int)
    for done in finished_blocks(model, image, InferenceConfig(**options)):
        whole = torch.zeros(len(done.logits), *pixels.shape[1:]) if whole is None else whole
        whole[:, *done.window.within(Window.of(image.size))] = done.logits
        count[done.window.within(Window.of(image.size))] += 1
    assert (count == 1).all()
    return whole


def noise(height, width, seed=0):
    return np.random.default_rng(seed).random((3, height, width), dtype=np.float32)


@settings(max_examples=12)
@given(
    st.integers(1, 90),
    st.integers(1, 90),
    st.sampled_from([16, 37, 64, 2048]),
    st.sampled_from([0, 0.25, 0.5, 0.8]),
    st.sampled_from(["none", "linear", "hann", "gaussian"]),
)
def test_an_identity_network_gives_the_image_back(height, width, block, overlap, blending):
    pixels = noise(height, width)
    result = predicted(
        segmenter(FixedScale(), nn.Identity()), pixels, block_size=block, overlap=overlap, blending=blending
    )
    np.testing.assert_allclose(result, pixels, atol=1e-5)


EVERY_WAY = [
    FixedScale(index=2),
    StraightThroughArgmax(),
    SoftExpectation(),
    Mixture(top=2),
    Ensemble(),
    RandomScale(),
]


@pytest.mark.parametrize("estimator", EVERY_WAY, ids=repr)
@pytest.mark.parametrize("block", [16, 40, 64])
def test_blocks_of_any_size_give_the_same_class_map(estimator, block):
    pixels, model = noise(130, 97), segmenter(estimator)
    whole = predicted(model, pixels, block_size=4096)
    parts = predicted(model, pixels, block_size=block)
    torch.testing.assert_close(parts, whole, atol=1e-6, rtol=0)
    assert torch.equal(parts.argmax(0), whole.argmax(0))


@pytest.mark.parametrize("estimator", EVERY_WAY[:-1], ids=repr)  # chance is drawn by tile, for any size of image
def test_files_and_tensors_give_the_same_prediction(estimator):
    """Without overlap the block-wise run and the in-memory forward look at the same windows."""
    pixels, model = noise(80, 70), segmenter(estimator)
    with torch.no_grad():
        expected = model(torch.from_numpy(pixels)[None])[0]
    result = predicted(model, pixels, overlap=0, block_size=32)
    if estimator.walk.by_probability:  # whose logits are known up to a constant
        result, expected = result.softmax(0), expected.softmax(0)
    torch.testing.assert_close(result, expected, atol=1e-5, rtol=0)


def test_the_batch_size_does_not_matter_much_and_the_shape_is_constant():
    shapes = set()

    class Watching(nn.Conv2d):
        def forward(self, x):
            shapes.add(tuple(x.shape))
            return super().forward(x)

    model, pixels = segmenter(SoftExpectation(), Watching(3, 4, 3)), noise(90, 60)
    one = predicted(model, pixels, batch_size=7, block_size=48)
    assert shapes == {(7, 3, 16, 16)}
    torch.testing.assert_close(one, predicted(model, pixels, batch_size=3, block_size=48), atol=1e-5, rtol=0)


def test_bytes_are_normalised_once():
    pixels = (noise(40, 40) * 255).astype(np.uint8)
    image = PixelSource(ArrayReader(pixels), [0, 1, 2], Normalisation(255.0, (0.5,) * 3, (0.5,) * 3), CPU)
    (done,) = finished_blocks(segmenter(FixedScale(), nn.Identity()), image, InferenceConfig())
    np.testing.assert_allclose(done.logits, pixels / 255 * 2 - 1, atol=1e-5)


def test_images_smaller_than_the_widest_view():
    result = predicted(segmenter(FixedScale(index=2), nn.Identity(), views=(16, 64, 256)), np.ones((3, 5, 9), "f4"))
    torch.testing.assert_close(result, torch.ones(3, 5, 9))


def test_the_foveation_field_is_that_of_the_whole_overview(monkeypatch):
    monkeypatch.setattr("foveate.inference.field.TILE_CELLS", 5)
    model, pixels = segmenter(StraightThroughArgmax()), noise(83, 59)
    tiles = {}
    field = FoveationField(model, source(pixels), lambda cells, logits: tiles.update({cells: logits}))
    rows, cols = torch.cartesian_prod(torch.arange(83), torch.arange(59)).T
    values = field.logits_at(rows, cols).view(83, 59, 3)
    with torch.no_grad():
        whole = model.scale_logits(overview_of(torch.from_numpy(pixels), 4, model.policy.margin)[None])[0]
    expected = whole.permute(1, 2, 0)[rows // 4, cols // 4].view(83, 59, 3)
    torch.testing.assert_close(values, expected, atol=1e-5, rtol=1e-5)
    assert sum(window.size.pixels for window in tiles) == 21 * 15


def test_an_error_while_reading_ahead_reaches_the_caller():
    class Broken(ArrayReader):
        def read(self, window, size=None):
            raise OSError("the disk is gone")

    image = PixelSource(Broken(noise(20, 20)), [0, 1, 2], PLAIN, CPU)
    with pytest.raises(OSError, match="the disk is gone"):
        list(finished_blocks(segmenter(SoftExpectation()), image, InferenceConfig()))


@given(st.integers(1, 50), st.integers(1, 50), st.integers(1, 20))
def test_blocks_cover_every_pixel_once(height, width, side):
    grid = BlockGrid(Size(height, width), side)
    count = np.zeros((height, width), int)
    for block in grid:
        count[block.within(Window.of(grid.image))] += 1
    assert (count == 1).all()
    assert len(list(grid)) == len(grid)


def test_a_plan_with_a_hole_is_an_error():
    stitcher = Stitcher(Window(0, 0, 4, 8), CPU, "none")
    passes = Passes(Windows(torch.tensor([0]), torch.tensor([0]), 4), torch.ones(1, 1), torch.ones(1))
    stitcher.add(passes, torch.zeros(1, 2, 4, 4))
    with pytest.raises(GeometryError, match="without a prediction"):
        stitcher.result()


def test_memory_of_sums_serves_what_comes_next_in_any_mode():
    canvases = Canvases()
    with torch.inference_mode():
        canvas = canvases.take(60, CPU)
        canvas += 1
    canvases.give_back(canvas)
    again = canvases.take(40, CPU)
    again.zero_()
    again += 2
    assert again is canvas
    assert again.eq(2).all()
