"""Tiles: they cover the raster, hold its values, and stay within bounds of memory."""

import io
import threading
from concurrent.futures import CancelledError

import numpy as np
import pytest
import rasterio
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from rasterio.enums import ColorInterp
from viewer_toys import CELL, HEIGHT, PLACE, WIDTH

from foveate.data import pyramids
from foveate.data.readers import ArrayReader, open_image
from foveate.geometry import Size, Window
from foveate.viewer.build import build_scene
from foveate.viewer.inputs import find_inputs
from foveate.viewer.page import TileGrid, TileIndex, TileService
from foveate.viewer.rendering import NOT_COUNTED, RIGHT, WRONG, read_nearest, spread
from foveate.viewer.scene import Options
from toys import write_image


@pytest.fixture(scope="module")
def service(toy):
    scene = build_scene(find_inputs([toy.image, toy.first], toy.labels))
    with TileService(scene, threads=2) as service:
        yield service


def number_of(service, kind):
    return next(i for i, layer in enumerate(service.scene.layers) if layer.kind == kind)


def pixels(service, kind, level, col, row):
    tile = service.submit(number_of(service, kind), TileIndex(level, col, row)).result()
    return np.asarray(Image.open(io.BytesIO(tile)))


def level(service, kind, number):
    """A whole level, put together from its tiles."""
    layer = service.scene.layers[number_of(service, kind)]
    grid = TileGrid(layer.size, service.scene.tile)
    size = grid.level_size(number)
    whole = np.zeros((size.height, size.width), np.uint8)
    for index in grid:
        if index.level == number:
            _, shown = grid.place(index)
            top, left = index.row * grid.side, index.col * grid.side
            whole[top : top + shown.height, left : left + shown.width] = pixels(service, kind, *index)
    return whole


def test_a_map_of_passes_becomes_bits(service):
    codes = pixels(service, "windows", 5, 0, 0)
    assert codes.shape == (-(-HEIGHT // 32), -(-WIDTH // 32))
    assert (codes[:, :14] & 1).all()
    assert not (codes[:, 14:] & 1).any()
    assert np.array_equal(np.argwhere(codes & 2) % 4, np.zeros((6 * 8, 2)))


@given(st.integers(1, 700), st.integers(1, 700), st.sampled_from([64, 100, 256]))
def test_the_tiles_of_every_level_cover_it_once(height, width, side):
    grid = TileGrid(Size(height, width), side)
    indices = list(grid)
    assert len(grid) == len(indices) == len(set(indices))
    assert grid.level_size(0) == Size(1, 1)
    assert grid.level_size(grid.max_level) == grid.size
    for number in range(grid.max_level + 1):
        size, covered = grid.level_size(number), 0
        for index in (i for i in indices if i.level == number):
            window, shown = grid.place(index)
            step = 1 << (grid.max_level - number)
            assert window == Window(
                index.row * side * step, index.col * side * step, shown.height * step, shown.width * step
            )
            covered += shown.pixels
        assert covered == size.pixels


@pytest.mark.parametrize("index", [(-1, 0, 0), (99, 0, 0), (8, 1, 0), (8, 0, -1), (8, 0, 10**9)])
def test_a_tile_that_is_not_there_is_an_index_error(index):
    with pytest.raises(IndexError):
        TileGrid(Size(256, 256)).place(TileIndex(*index))


def test_class_tiles_are_the_class_map(service, toy):
    assert np.array_equal(level(service, "classes", 10), toy.classes)


@pytest.mark.parametrize("number", [9, 8, 6])
def test_coarse_class_tiles_hold_the_id_near_the_centre_of_each_pixel(service, toy, number):
    step = 1 << (10 - number)
    coarse = level(service, "classes", number)
    rows, cols = (
        np.minimum(np.arange(n) * step + step // 2, end - 1)
        for n, end in zip(coarse.shape, (HEIGHT, WIDTH), strict=True)
    )
    agree = coarse == toy.classes[np.ix_(rows, cols)]
    # Stored levels round their sizes, so that ids may come from a neighbour where classes meet.
    assert agree.mean() > 0.96
    assert set(np.unique(coarse)) == {0, 1, 2}


def test_image_tiles_are_what_the_reader_reads(service, toy):
    with open_image(toy.image) as reader:
        expected = np.moveaxis(reader.read(Window(256, 512, 256, 256)), 0, -1)
        coarse = np.moveaxis(reader.read(Window(0, 0, 1024, 1024), Size(256, 256)), 0, -1)
    assert np.abs(pixels(service, "image", 10, 2, 1).astype(int) - expected).mean() < 5  # JPEG
    got = pixels(service, "image", 8, 0, 0)
    assert got.shape == (175, 225, 3)
    assert np.abs(got.astype(int) - coarse[:175, :225]).mean() < 5


def test_values_span_the_codes_and_unknown_is_zero(service, toy):
    layer = service.scene.layers[number_of(service, "fov")]
    codes = level(service, "fov", 6).astype(float)
    values = layer.scale.low + (codes - 1) / 254 * (layer.scale.high - layer.scale.low)
    assert layer.pixel == CELL
    assert np.abs(values - toy.fov).max() <= 96 / 254 / 2 + 1e-3
    confidence = level(service, "confidence", 10)
    assert (confidence[:, :50] == 0).all()
    assert (confidence[:, 50:] == 128).all()  # half of 254, as the byte of 1


def test_errors_are_where_labels_and_classes_differ(service, toy):
    with open_image(toy.labels) as reader:
        labels = reader.read(Window.of(reader.size))[0]
    assert np.array_equal(level(service, "errors", 10), np.where(labels == toy.classes, RIGHT, WRONG))


def test_labels_go_through_the_label_map_and_what_it_does_not_name_is_not_counted(toy):
    scene = build_scene(find_inputs([toy.image], toy.labels), Options(label_map={2: 0, 0: 1}))
    with TileService(scene, threads=1) as service, open_image(toy.labels) as reader:
        labels = reader.read(Window.of(reader.size))[0]
        assert np.array_equal(level(service, "labels", 10), np.choose(labels, [1, NOT_COUNTED, 0]))


@given(st.integers(1, 40), st.integers(1, 40), st.integers(0, 3))
def test_nearest_of_an_image_without_levels_picks_the_centre(height, width, power):
    values = np.arange(height * width, dtype=np.uint16).reshape(height, width)
    step, reader = 1 << power, ArrayReader(values)
    size = Size(-(-height // step), -(-width // step))
    (got,) = read_nearest(reader, Window(0, 0, size.height * step, size.width * step), size)
    rows, cols = (
        np.minimum(np.arange(n) * step + step // 2, end - 1) for n, end in ((size.height, height), (size.width, width))
    )
    assert np.array_equal(got, values[np.ix_(rows, cols)])


def test_png_labels_are_never_blended(tmp_path):
    labels = np.random.default_rng(0).integers(0, 2, (600, 600)).astype(np.uint8) * 200
    with open_image(write_image(tmp_path / "labels.png", labels[None])) as reader:
        assert set(np.unique(read_nearest(reader, Window.of(reader.size), Size(75, 75)))) == {0, 200}


@pytest.mark.parametrize("dtype", ["uint16", "int16", "float32"])
def test_a_tile_keeps_every_value_of_an_image_of_more_than_8_bits(tmp_path, dtype):
    scale = 1e-4 if dtype == "float32" else 1
    values = (np.linspace(1000, 3000, 600 * 600) * scale).reshape(600, 600).astype(dtype)
    values[:150, :150], values[450:, 450:] = 0, 30000 * scale  # far from what is shown at first
    scene = build_scene(find_inputs([write_image(tmp_path / "deep.tif", values[None])], None))
    (tone,) = scene.layers[0].tone.contrasts
    table = np.asarray(tone.values)
    assert (np.diff(table) > 0).all()
    assert table[0] <= values.min()
    assert table[-1] >= values.max()
    black, white = np.interp([tone.black, tone.white], np.linspace(0, 1, 256), table)
    assert (tone.white - tone.black) > 0.45  # of the codes, for what is shown at first
    with TileService(scene, threads=1) as service:
        tile = pixels(service, "image", 10, 0, 0)[..., 0]
    stored, shown = values[:256, :256].astype(float), table[tile]
    inside = (stored > black) & (stored < white)
    inside[:160, :160] = False  # edges, which JPEG blurs
    assert np.abs(shown - stored)[inside].max() < 0.03 * (white - black)
    assert np.abs(shown[8:136, 8:136]).max() < 150 * scale


def test_codes_reach_to_both_ends_of_a_type_and_none_is_lost(tmp_path):
    rng = np.random.default_rng(0)
    samples = {
        "uint16": [rng.normal(400, 20, 9999), np.full(9, 7), [0], [65535], []],
        "int16": [rng.normal(-3000, 100, 9999), [-32768, 32767]],
        "uint32": [rng.normal(2e9, 1e8, 9999)],
        "float32": [
            rng.normal(0, 1e-20, 9999),
            np.r_[np.zeros(9999), 1],
            np.full(9, 1e6),
            rng.normal(0, 1e29, 999),
            [],
        ],
    }
    for dtype, seen in ((np.dtype(name), np.asarray(one, float)) for name, some in samples.items() for one in some):
        table = spread(seen, dtype)
        assert table.shape == (256,)
        assert np.isfinite(table).all()
        assert (np.diff(table) > 0).all()
        if dtype.kind in "iu":
            limits = np.iinfo(dtype)
            assert (table[0], table[-1]) == (pytest.approx(limits.min, abs=1e-6), pytest.approx(limits.max))
        elif seen.size:
            assert table[0] < seen.min() <= seen.max() < table[-1]


def test_unknown_layers_and_tiles_are_refused_before_any_work(service):
    for layer, index in ((99, (0, 0, 0)), (-1, (0, 0, 0)), (0, (10, 4, 0))):
        with pytest.raises(IndexError):
            service.submit(layer, TileIndex(*index))


def tone_of(folder, values, **profile):
    scene = build_scene(find_inputs([write_image(folder / "image.tif", values, **PLACE, **profile)]))
    return scene.layers[0].tone


def contrast_of(tone):
    (contrast,) = tone.contrasts
    return contrast


def test_bytes_are_shown_as_they_are_unless_nearly_all_are_dark(tmp_path):
    ramp = np.linspace(0, 255, 100 * 100).reshape(1, 100, 100).astype(np.uint8)
    assert tone_of(tmp_path, ramp) == ((("", tuple(range(256)), 0, 1, (0, 1)),), 1)
    tone = tone_of(tmp_path, ramp // 8)
    dark = contrast_of(tone)
    assert dark.values == tuple(range(256))
    assert dark.whole == (0, 1)
    assert dark.white == pytest.approx(0.98 * 31 / 255, abs=0.005)
    assert dark.black == pytest.approx(0.02 * 31 / 255, abs=0.005)
    assert tone.gamma == 1  # half of the values are bright now


def shown_first(tone):
    """The values that are black and white at first, and the lowest and highest that were seen."""
    contrast = contrast_of(tone)
    return np.interp([contrast.black, contrast.white, *contrast.whole], np.linspace(0, 1, 256), contrast.values)


def test_other_values_are_stretched_and_what_stays_dark_is_lifted(tmp_path):
    even = np.linspace(200, 4000, 100 * 100).reshape(1, 100, 100).astype(np.uint16)
    tone = tone_of(tmp_path, even)
    assert shown_first(tone) == pytest.approx([276, 3924, 200, 4000], abs=2)
    assert tone.gamma == 1
    skewed = (4000 * np.linspace(0, 1, 100 * 100) ** 3).reshape(1, 100, 100).astype(np.uint16)
    middle = 0.5**3 / 0.98**3
    assert tone_of(tmp_path, skewed).gamma == pytest.approx(np.log(middle) / np.log(0.25), abs=0.02)
    spots = np.where(np.arange(10000) % 20 == 0, 4000, 5).reshape(1, 100, 100).astype(np.uint16)
    assert tone_of(tmp_path, spots).gamma == 2  # at most


@pytest.mark.parametrize("one_in", [100, 500])
def test_a_few_bright_cells_on_a_dark_ground_are_shown_and_not_the_noise_of_the_ground(tmp_path, one_in):
    noise = np.random.default_rng(0).normal(200, 10, 10000)
    cells = np.where(np.arange(10000) % one_in == 0, 20000, noise).reshape(1, 100, 100).astype(np.uint16)
    black, white, *_ = shown_first(tone_of(tmp_path, cells))
    assert black < 200
    assert white == pytest.approx(20000, abs=100)


def test_bands_that_are_no_colours_of_a_picture_have_a_contrast_each(tmp_path):
    """Stains differ in brightness by orders of magnitude; the colours of a picture keep their hues."""
    ramp = np.linspace(0, 1, 100 * 100).reshape(100, 100)
    stains = np.stack([200 + 12000 * ramp, 400 + 600 * ramp, 100 + 60 * ramp]).astype(np.uint16)
    path = write_image(tmp_path / "stains.tif", stains, **PLACE)
    with rasterio.open(path, "r+") as file:
        file.descriptions = ("DAPI", "FITC", "Cy5")
    scene = build_scene(find_inputs([path]))
    contrasts = scene.layers[0].tone.contrasts
    assert [one.name for one in contrasts] == ["DAPI", "FITC", "Cy5"]
    for one, low, high in zip(contrasts, (200, 400, 100), (12200, 1000, 160), strict=True):
        black, white = np.interp([one.black, one.white], np.linspace(0, 1, 256), one.values)
        assert black == pytest.approx(low + 0.02 * (high - low), abs=0.02 * (high - low))
        assert white == pytest.approx(high - 0.02 * (high - low), abs=0.02 * (high - low))
    with TileService(scene, threads=1) as service:
        tile = pixels(service, "image", 7, 0, 0)
    for place, one in enumerate(contrasts):
        span = np.ptp(stains[place].astype(float))
        assert np.abs(np.take(one.values, tile[..., place]) - stains[place]).max() < 0.05 * span
    with rasterio.open(path, "r+") as file:
        file.descriptions = (None, None, None)
        file.colorinterp = (ColorInterp.red, ColorInterp.green, ColorInterp.blue)
    assert contrast_of(build_scene(find_inputs([path])).layers[0].tone).name == ""
    assert len(tone_of(tmp_path, (stains // 100).astype(np.uint8)).contrasts) == 1  # bytes without names are a picture
    alone = build_scene(find_inputs([path]), Options(bands=(2,))).layers[0].tone
    assert shown_first(alone)[1] == pytest.approx(988, abs=8)


def test_closing_does_not_wait_for_the_levels_of_a_large_file(tmp_path, monkeypatch):
    monkeypatch.setattr(pyramids, "_MOST_PIXELS", 10_000)
    monkeypatch.setenv("FOVEATE_CACHE", str(tmp_path / "cache"))
    path = write_image(tmp_path / "a.tif", np.zeros((3, 600, 800), np.uint8), **PLACE)
    service = TileService(build_scene(find_inputs([path])))
    begun, go_on = threading.Event(), threading.Event()

    def windows(source, tile):
        begun.set()
        assert go_on.wait(60)
        yield from (Window(0, 0, 1, 1) for _ in range(10**9))  # as good as for ever

    monkeypatch.setattr("foveate.tiff.raster._windows", windows)
    tile = service.submit(0, TileIndex(5, 0, 0))
    assert begun.wait(60)
    threading.Timer(0.2, go_on.set).start()
    service.close()
    assert isinstance(tile.exception(), CancelledError)
    assert {file.suffix for file in (tmp_path / "cache").iterdir()} == {".lock"}
