from dataclasses import replace

import numpy as np
import pytest
import torch
from data_toys import footprint_means, smooth_image
from hypothesis import given
from hypothesis import strategies as st

from foveate.data.locations import Augmentation, LocationBatch, LocationSpec, read_location
from foveate.data.readers import ArrayReader
from foveate.data.sections import AugmentationConfig
from foveate.errors import GeometryError
from foveate.geometry import CellGrid, Window
from foveate.patches import ScaleSet
from foveate.patches.extraction import overview_window
from oracles import mirrored
from toys import labels_of

SPEC = LocationSpec(ScaleSet(8, (16, 32, 64)), 8, 2, (0, 1, 2))
HEIGHT, WIDTH = 96, 128  # whole cells: a turned image has the same cells
IMAGE = smooth_image(3, HEIGHT, WIDTH, np.float32)
MASK = np.random.default_rng(1).integers(0, 3, (HEIGHT, WIDTH)).astype(np.uint8)


def read(image, mask, cell, spec=SPEC, channels=(0, 1, 2)):
    return read_location(ArrayReader(image), labels_of(ArrayReader(mask), 3), cell, spec, list(channels))


@given(st.integers(0, 11), st.integers(0, 15))
def test_what_a_location_is(row, col):
    location = read(IMAGE, MASK, (row, col))
    top, left = row * 8 + 4, col * 8 + 4
    for patch, fov in zip(location.patches, (16, 32, 64), strict=True):
        window = mirrored(IMAGE, top - fov // 2, left - fov // 2, fov, fov)
        np.testing.assert_allclose(patch, footprint_means(window, 8, 8), atol=1e-5)
    overview = mirrored(IMAGE, row * 8 - 16, col * 8 - 16, 40, 40)
    np.testing.assert_allclose(location.overview, footprint_means(overview, 5, 5), atol=1e-5)
    padded = np.pad(MASK, 8, constant_values=255)
    np.testing.assert_array_equal(location.label, padded[top : top + 16, left : left + 16])


def test_crops_are_parts_of_the_whole_overview():
    image = ArrayReader(smooth_image(1, 301, 419, np.uint8))
    grid = CellGrid(image.size, 8)
    whole = image.read(*overview_window(Window(0, 0, grid.rows, grid.cols), 8, 2))
    assert whole.shape == (1, grid.rows + 4, grid.cols + 4)
    for row, col in [(0, 0), (10, 20), (grid.rows - 1, grid.cols - 1)]:
        crop = image.read(*overview_window(Window(row, col, 1, 1), 8, 2))
        np.testing.assert_array_equal(crop, whole[:, row : row + 5, col : col + 5])


@pytest.mark.parametrize(
    ("dtype", "expected"), [(np.uint8, torch.uint8), (np.uint16, torch.float32), (np.float64, torch.float32)]
)
def test_types_and_channels(dtype, expected):
    image = smooth_image(2, HEIGHT, WIDTH, dtype)
    location = read(image, MASK, (3, 4), channels=(1, 1, 1))
    assert location.patches.dtype == location.overview.dtype == expected
    assert location.label.dtype == torch.uint8
    assert (location.patches[:, 0] == location.patches[:, 2]).all()


def test_reads_only_the_scales_asked_for():
    one = read(IMAGE, MASK, (3, 4), LocationSpec(SPEC.scales, 8, 0, (1,)))
    assert one.overview.shape == (3, 1, 1)
    assert one.label.shape == (16, 16)
    torch.testing.assert_close(one.patches, read(IMAGE, MASK, (3, 4)).patches[1:2])


def test_window_labels_are_nearest_over_each_patchs_window():
    location = read(IMAGE, MASK, (3, 4), replace(SPEC, window_labels=True))
    assert location.window_labels.shape == (3, 8, 8)
    assert read(IMAGE, MASK, (3, 4)).window_labels.shape == (0, 8, 8)
    for labels, fov in zip(location.window_labels, (16, 32, 64), strict=True):
        step, corner = fov // 8, np.array([3 * 8 + 4, 4 * 8 + 4]) - fov // 2
        rows, cols = (c + step // 2 + step * np.arange(8) for c in corner)
        inside = np.ix_((rows >= 0) & (rows < HEIGHT), (cols >= 0) & (cols < WIDTH))
        expected = MASK[np.ix_(rows[(rows >= 0) & (rows < HEIGHT)], cols[(cols >= 0) & (cols < WIDTH)])]
        np.testing.assert_array_equal(labels.numpy()[inside], expected)


@pytest.mark.parametrize(("cell", "margin", "scales"), [(0, 1, (0,)), (8, -1, (0,)), (8, 1, ()), (8, 1, (3,))])
def test_bad_spec(cell, margin, scales):
    with pytest.raises(GeometryError, match="must be"):
        LocationSpec(SPEC.scales, cell, margin, scales)


def test_batches():
    a, b = read(IMAGE, MASK, (1, 1)), read(IMAGE, MASK, (2, 5))
    batch = LocationBatch.concatenate([LocationBatch.stack([a, b]), LocationBatch.stack([b])])
    assert batch.patches.shape == (3, 3, 3, 8, 8)
    assert (batch.label[1] == batch.label[2]).all()


def turned(array, vertical, horizontal, turns):
    array = array[..., ::-1, :] if vertical else array
    array = array[..., ::-1] if horizontal else array
    return np.rot90(array, turns, (-2, -1)).copy()


def turned_cell(row, col, vertical, horizontal, turns):
    grid = np.zeros((HEIGHT // 8, WIDTH // 8))
    grid[row, col] = 1
    return tuple(int(k[0]) for k in np.nonzero(turned(grid, vertical, horizontal, turns)))


def test_moving_a_location_is_reading_the_moved_image():
    augmentation = Augmentation(AugmentationConfig(), 1.0)
    seen = set()
    for seed in range(80):
        rng = np.random.default_rng(seed)
        found = augmentation(read(IMAGE, MASK, (2, 9)), np.random.default_rng(seed))
        how = (*(bool(flip) for flip in rng.random(2) < 0.5), int(rng.integers(4)))
        seen.add(how)
        expected = read(turned(IMAGE, *how), turned(MASK, *how), turned_cell(2, 9, *how))
        for a, b in zip(found[:-1], expected[:-1], strict=True):
            torch.testing.assert_close(a, b, atol=1e-5, rtol=0)
    assert len(seen) == 16


def test_upright_scenes_are_mirrored_left_to_right_only():
    augmentation = Augmentation(AugmentationConfig(orientations="horizontal"), 1.0)
    location = read(IMAGE, MASK, (2, 9))
    changed = [augmentation(location, np.random.default_rng(seed)).label for seed in range(30)]
    mirrored = [not torch.equal(label, location.label) for label in changed]
    assert 5 < sum(mirrored) < 25
    assert all(torch.equal(changed[i], location.label.flip(-1)) for i in range(30) if mirrored[i])


@pytest.mark.parametrize(("channels", "dtype"), [(3, np.uint8), (3, np.float32), (1, np.uint8), (5, np.uint16)])
def test_colours_change_alike_and_repeatably(channels, dtype):
    jitter = (0.5, 0, 0.5, 0.2) if channels == 3 else (0.5,)
    config = AugmentationConfig(orientations="none", color_jitter=jitter)
    scale = 1.0 if np.dtype(dtype).kind == "f" else float(np.iinfo(dtype).max)
    image = np.ones((channels, HEIGHT, WIDTH)) * np.linspace(0.2, 0.5, channels)[:, None, None]
    image = (image * scale).astype(dtype)
    location = read(image, MASK, (5, 5), channels=range(channels))
    augmentation = Augmentation(config, scale)
    state = torch.get_rng_state()
    found, again, other = (augmentation(location, np.random.default_rng(seed)) for seed in (1, 1, 2))
    assert (torch.get_rng_state() == state).all()
    assert found.patches.dtype == location.patches.dtype
    assert found.patches.shape == location.patches.shape
    assert (found.patches == again.patches).all()
    assert (found.patches != other.patches).any()
    assert (found.label == location.label).all()
    # A plain image stays plain: the same change everywhere.
    colours = torch.cat([part.movedim(-3, 0).flatten(1) for part in (found.patches, found.overview)], dim=1)
    assert (colours.amax(1) - colours.amin(1)).max() <= 1e-5 * scale
    assert (colours[:, 0] != location.overview[:, 0, 0]).any()


def test_without_saturation_and_hue_each_channel_changes_by_itself():
    """The contrast of colours is around the grey of all, which a bright stain would put into a dim one."""
    stains = np.stack([np.full((HEIGHT, WIDTH), value) for value in (0.9, 0.2, 0.01)])
    stains[:, ::2] *= 0.9
    location = read(stains.astype(np.float32), MASK, (5, 5), channels=range(3))
    for seed in range(5):
        config = AugmentationConfig(orientations="none", color_jitter=(0, 0.5))
        found = Augmentation(config, 1.0)(location, np.random.default_rng(seed)).patches
        means = found.mean(dim=(-2, -1))
        torch.testing.assert_close(means, location.patches.mean(dim=(-2, -1)), rtol=0.02, atol=0)


def test_switches_do_not_change_what_is_drawn():
    plain = read(IMAGE, MASK, (5, 5))
    moved = Augmentation(AugmentationConfig(), 1.0)(plain, np.random.default_rng(3))
    both = Augmentation(AugmentationConfig(color_jitter=(0.3,)), 1.0)(plain, np.random.default_rng(3))
    assert (moved.label == both.label).all()
