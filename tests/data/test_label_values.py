"""What the values and colours of mask files mean."""

import numpy as np
import pytest
from data_toys import data_config, smooth_image, write
from PIL import Image

from foveate.data.checks import inspect_samples, notes_on
from foveate.data.images import open_labels
from foveate.data.manifest import load_samples
from foveate.data.readers import ArrayReader
from foveate.errors import ConfigError, DatasetError
from foveate.geometry import Size, Window
from toys import labels_of

ONES = (np.random.default_rng(0).random((40, 60)) < 0.4).astype(np.uint8)
RED_ON_BLACK = [{"name": "ground", "color": "#000000"}, {"name": "disc", "color": "#ff0000"}]
BLACK, RED, GREEN, WHITE = (0, 0, 0), (255, 0, 0), (0, 255, 0), (255, 255, 255)


def ids(mask, classes=2, **options):
    labels = labels_of(ArrayReader(np.asarray(mask), "m.tif"), classes, **options)
    return labels.read(Window.of(labels.size)).tolist()


def read(folder, **values):
    """The labels of the one image of a data set, after the checks that training makes."""
    config = data_config(folder, **values)
    samples = load_samples(config)
    inspect_samples(samples, config)
    with open_labels(samples[0], config) as labels:
        return labels.read(Window.of(labels.size))


@pytest.fixture
def folder(tmp_path):
    for kind in ("images", "masks"):
        (tmp_path / kind).mkdir()
    write(tmp_path / "images" / "a.tif", smooth_image(3, 40, 60, np.uint8).clip(1), driver="GTiff")
    return tmp_path


def test_values_of_any_size():
    mask = np.array([[-9999, 1000000, 1070000, 255]], np.int32)
    assert ids(mask, label_map={-9999: 255, 1000000: 0, 1070000: 1}) == [[255, 0, 1, 255]]
    assert ids(mask.astype(np.int64), label_map={-9999: 1, 1000000: 0, 1070000: 1}) == [[1, 0, 1, 255]]
    assert ids(mask.astype(np.float64), label_map={-9999: 255, 1000000: 0, 1070000: 1}) == [[255, 0, 1, 255]]
    assert ids(np.array([[-128, 127, 0]], np.int8), label_map={-128: 255, 127: 1}) == [[255, 1, 0]]
    assert ids(np.array([[65535, 40000, 0]], np.uint16), label_map={65535: 255, 40000: 1}) == [[255, 1, 0]]


def test_truth_values():
    assert ids(np.array([[True, False]])) == [[1, 0]]


def test_floats():
    assert ids(np.array([[0, 1, np.nan, 255]], np.float32)) == [[0, 1, 255, 255]]
    assert ids(np.array([[-0.0, 1e0]])) == [[0, 1]]
    with pytest.raises(DatasetError, match=r"m\.tif holds the value 0\.37, which is not a whole number"):
        ids(np.array([[0, 1, 0.37]], np.float64))
    with pytest.raises(DatasetError, match=r"holds the value 7; allowed are 0, 1, 255\. It also holds 9\."):
        ids(np.array([[0, 7, 9]], np.float32))


def test_a_label_map_is_suggested_from_the_values():
    with pytest.raises(DatasetError, match=r"data\.label_map=\{0: 0, 127: 1, 255: 2\}"):
        ids(np.array([[0, 127, 255]], np.uint8), classes=3)
    with pytest.raises(DatasetError, match=r"data\.label_map=\{128: 1\}"):
        ids(np.array([[0, 128, 0, 255]], np.uint8), classes=2)


def test_a_class_that_the_map_leads_nothing_to_keeps_its_value():
    assert ids(np.array([[0, 255, 0]], np.uint8), label_map={255: 1}) == [[0, 1, 0]]
    assert ids(np.array([[0, 9, 2]], np.uint8), classes=3, label_map={9: 1}) == [[0, 1, 2]]
    with pytest.raises(DatasetError, match=r"holds the value 1; allowed are 0, 2, 9, 255"):
        ids(np.array([[1]], np.uint8), classes=3, label_map={9: 1})


@pytest.mark.parametrize("dtype", [np.int16, np.int32, np.float32, np.float64])
def test_what_the_mask_calls_no_data_is_not_counted(folder, dtype):
    mask = ONES.astype(dtype)
    mask[:10] = -9999
    write(folder / "masks" / "a.tif", mask[None], driver="GTiff", nodata=-9999)
    expected = ONES.copy()
    expected[:10] = 255
    for values in ({}, {"use_nodata": False}):
        assert (read(folder, **values) == expected).all()
    assert (read(folder, label_map={-9999: 1, 1: 1})[:10] == 1).all()


def test_a_class_that_the_mask_calls_no_data(folder):
    write(folder / "masks" / "a.tif", ONES[None], driver="GTiff", nodata=0)
    assert (read(folder) == np.where(ONES, 1, 255)).all()
    assert (read(folder, label_map={0: 0}) == ONES).all()
    assert (read(folder, use_nodata=False) == ONES).all()


def test_several_equal_bands_are_one(folder):
    write(folder / "masks" / "a.png", ONES[None].repeat(3, 0), driver="PNG")
    assert (read(folder) == ONES).all()
    config = data_config(folder)
    assert notes_on(inspect_samples(load_samples(config), config)) == (
        "a: the mask has 3 equal bands; Foveate reads the first",
    )


def test_several_different_bands(folder):
    write(folder / "masks" / "a.tif", np.stack([ONES, 1 - ONES]), driver="GTiff")
    with pytest.raises(DatasetError, match=r"a\.tif has 2 different bands of uint8; a mask has one band of class ids"):
        read(folder)


def test_a_transparent_mask(folder):
    opaque = np.full((40, 60), 255, np.uint8)
    opaque[:, :7] = 0
    expected = np.where(opaque, ONES, 255)
    Image.fromarray(np.dstack([ONES, opaque]), "LA").save(folder / "masks" / "a.png")
    assert (read(folder) == expected).all()
    Image.fromarray(np.dstack([ONES, ONES, ONES, opaque])).save(folder / "masks" / "a.png")
    assert (read(folder) == expected).all()
    Image.fromarray(np.dstack([ONES * 255, ONES * 0, ONES * 0, opaque])).save(folder / "masks" / "a.png")
    assert (read(folder, classes=RED_ON_BLACK, label_map="colors") == expected).all()


def colour_mask(folder, *palette):
    Image.fromarray(np.array(palette, np.uint8)[ONES]).save(folder / "masks" / "a.png")


def test_colours(folder):
    colour_mask(folder, BLACK, RED)
    remedy = r"data\.label_map=\{'#000000': 0, '#ff0000': 1\}"
    with pytest.raises(DatasetError, match=r"holds colours \(#000000, #ff0000\): map them .*" + remedy):
        read(folder, classes=RED_ON_BLACK)
    assert (read(folder, classes=RED_ON_BLACK, label_map="colors") == ONES).all()
    assert (read(folder, label_map={"#000000": 255, "#FF0000": 0}) == np.where(ONES, 0, 255)).all()
    colour_mask(folder, WHITE, RED)
    with pytest.raises(DatasetError, match=r"the colour #ffffff; allowed are #000000, #ff0000.*'#ffffff': 1.*with 255"):
        read(folder, classes=RED_ON_BLACK, label_map="colors")
    write(folder / "masks" / "a.png", ONES[None], driver="PNG")
    with pytest.raises(DatasetError, match=r"data\.label_map names colours, which masks with three uint8 bands"):
        read(folder, classes=RED_ON_BLACK, label_map="colors")


def test_colours_in_the_configuration(folder):
    same = [{"name": "a", "color": "#000000"}, {"name": "b", "color": "#000000"}]
    for values, message in (
        ({"label_map": {"red": 1}}, "a whole number, or a colour such as '#ff0000'"),
        ({"label_map": {"#ff0000": 9}}, r"label_map maps to \[9\]"),
        ({"label_map": {"#ff0000": 1, 7: 0}}, "one kind of values"),
        ({"label_map": "colours"}, "'colors' or 'ids'"),
        ({"label_map": "colors", "classes": same}, "a different colour for each class"),
        ({"colors": True, "label_map": {3: 1}}, "remove one of them"),
    ):
        with pytest.raises(ConfigError, match=message):
            data_config(folder, **values)
    for given in ({"#ff0000": 1, "#00FF00": 0}, {7: 1, "-3": 0}, "colors", "ids", None):
        config = data_config(folder, label_map=given)
        assert type(config).parse(config.tree()) == config
    assert data_config(folder, label_map={7: 1, "-3": 0}).mask_values == {7: 1, -3: 0}


def test_the_colours_of_earlier_versions_are_a_label_map(folder):
    for colors, now in ((True, "colors"), (False, "ids"), ({"#FF0000": 1}, {"#ff0000": 1}), (None, None)):
        assert data_config(folder, colors=colors).label_map == now
    assert data_config(folder, colors=False, label_map={3: 1}).label_map == {3: 1}


def indexed_mask(folder, name, *palette, index=ONES):
    picture = Image.frombytes("P", index.shape[::-1], index.tobytes())
    picture.putpalette([part for colour in palette for part in colour] + [9] * 3 * (256 - len(palette)))
    picture.save(folder / "masks" / f"{name}.png")


def test_colour_tables(folder):
    indexed_mask(folder, "a", BLACK, RED)
    for values in ({}, {"classes": RED_ON_BLACK}, {"classes": RED_ON_BLACK, "label_map": "colors"}):
        assert (read(folder, **values) == ONES).all()
    assert (read(folder, label_map={"#000000": 1, "#ff0000": 0}) == 1 - ONES).all()
    indexed_mask(folder, "a", RED, BLACK)
    with pytest.raises(
        DatasetError, match=r"index 0, which would be ground, in the colour of disc; map the colours with"
    ):
        read(folder, classes=RED_ON_BLACK)
    assert (read(folder, classes=RED_ON_BLACK, label_map="colors") == 1 - ONES).all()
    assert (read(folder, classes=RED_ON_BLACK, label_map="ids") == ONES).all()
    indexed_mask(folder, "a", BLACK, RED)
    indexed_mask(folder, "b", GREEN, WHITE)
    write(folder / "images" / "b.tif", smooth_image(3, 40, 60, np.uint8).clip(1), driver="GTiff")
    with pytest.raises(DatasetError, match=r"a\.png and .*b\.png have different colour tables"):
        read(folder)
    assert (read(folder, label_map="ids") == ONES).all()
    assert (read(folder, label_map={0: 0, 1: 1}) == ONES).all()


def test_jpeg(folder):
    blocks = np.kron(ONES[:5, :8], np.ones((8, 8), np.uint8))[:, :60]
    Image.fromarray(blocks * 255).save(folder / "masks" / "a.jpg", quality=60)
    with pytest.raises(DatasetError, match=r"a\.jpg has lossy JPEG compression.*noise.*PNG.*data\.round_labels=true"):
        read(folder)
    with pytest.raises(DatasetError, match=r"data\.round_labels needs values at least 16 apart, got 0, 1, 255"):
        read(folder, round_labels=True)
    assert (read(folder, round_labels=True, label_map={255: 1}) == blocks).all()
    coloured = np.array([GREEN, RED], np.uint8)[blocks]
    Image.fromarray(coloured).save(folder / "masks" / "a.jpg", quality=95, subsampling=0)
    rounded = read(folder, round_labels=True, label_map={"#00ff00": 0, "#ff0000": 1})
    assert (rounded == blocks).all()


def test_jpeg_in_a_tiff(folder):
    write(folder / "masks" / "a.tif", ONES[None] * 255, driver="GTiff", compress="JPEG")
    with pytest.raises(DatasetError, match=r"a\.tif has lossy JPEG compression"):
        read(folder, label_map={255: 1})
    write(folder / "masks" / "a.tif", ONES[None] * 255, driver="GTiff", compress="LZW")
    assert (read(folder, label_map={255: 1}) == ONES).all()


def test_picked_values_are_the_same(folder):
    """Smaller sizes pick among ids, never among blended colours."""
    colour_mask(folder, BLACK, RED)
    config = data_config(folder, classes=RED_ON_BLACK, label_map="colors")
    with open_labels(load_samples(config)[0], config) as labels:
        assert (labels.read(Window(0, 0, 40, 60), Size(20, 20)) == ONES[1::2, 1::3]).all()
