"""From a folder to a configuration that trains."""

import json
from pathlib import Path

import numpy as np
import pytest
import tifffile
from affine import Affine
from rasterio.features import shapes as outlines_of
from typer.testing import CliRunner

import foveate
from foveate.cli.app import app
from foveate.data.readers.gdal import open_dataset
from foveate.errors import ConfigError, DatasetError, OutputExistsError
from foveate.runs.config import RunConfig
from foveate.runs.init import init
from toys import make_data_set, shapes, write_image

SHORT = [
    "training.steps=4", "training.validate_every=2", "training.warmup_steps=0", "training.locations_per_step=4",
    "network.weights=none", "network.architecture=unet", "network.encoder=resnet18", "data.workers=0",
    "network.options={encoder_depth: 3, decoder_channels: [16, 8, 8]}", "training.validation_locations=4",
]  # fmt: skip


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


def discs(folder, names="abc", write=None, **profile):
    """Images of discs and their labels, written by `write(path without suffix, label (H, W))`."""
    for seed, name in enumerate(names):
        image, label = shapes(seed)
        write_image(folder / "images" / f"{name}.tif", image, **profile)
        (folder / "masks").mkdir(exist_ok=True)
        write(folder / "masks" / name, label[0])
    return folder


def trained(config, out):
    result = CliRunner().invoke(app, ["train", str(config), "--out", str(out), *SHORT], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return foveate.load(out, device="cpu")


def png(path, pixels, **profile):
    write_image(path.with_name(f"{path.name}.png"), pixels, **profile)


def test_class_ids(here):
    done = init(make_data_set(here / "toy"))
    config = done.config
    assert done.path == Path("toy.yaml")
    assert config.data.class_names == ["background", "foreground"]
    assert config.data.label_map is None
    assert len(config.data.split.val) == 1
    assert config.foveation.fields_of_view == (64, 128)
    text = done.path.read_text()
    assert "4 images with labels" in text
    assert all("#" in line for line in text.splitlines() if "balance" in line or "split" in line)
    assert RunConfig.load(done.path) == config
    run = trained(done.path, here / "run")
    assert run.config.training.steps == 4


def test_masks_of_0_and_255(here):
    folder = discs(here / "toy", write=lambda path, label: png(path, label[None] * np.uint8(255)))
    config = init(folder).config
    assert config.data.label_map == {0: 0, 255: 1}
    trained("toy.yaml", here / "run")


def overlapping(label):
    """Two classes, (2, H, W): the discs, and the same moved so that they overlap."""
    return np.stack([label, np.roll(label, 9, axis=1)]).astype(np.uint8)


def test_masks_with_a_band_for_each_class_overlap(here):
    folder = discs(
        here / "toy", write=lambda path, label: write_image(path.with_suffix(".tif"), 255 * overlapping(label))
    )
    (folder / "classes.txt").write_text("disc\nmoved\n")
    done = init(folder)
    assert done.config.data.overlapping
    assert done.config.data.class_names == ["disc", "moved"]
    share = np.mean([shapes(seed)[1].mean() for seed in range(3)])
    assert done.found["disc"].startswith(f"{100 * share:.1f} %, in 3 of 3 images")
    array = trained("toy.yaml", here / "run").predict(np.zeros((64, 64, 3), np.uint8))
    assert array.classes.shape == (2, 64, 64)


def test_a_folder_of_masks_for_each_class_overlaps(here):
    def write(path, label):
        for name, mask in zip(("disc", "moved"), overlapping(label), strict=True):
            png(path.parent / name / path.name, mask[None])

    config = init(discs(here / "toy", write=write)).config
    assert config.data.overlapping
    assert config.data.class_names == ["disc", "moved"]
    assert config.data.folder is not None
    trained("toy.yaml", here / "run")


def test_255_beside_classes_is_no_label_and_said(here):
    def write(path, label):
        label = label * np.uint8(3)
        label[:20] = 255
        png(path, label[None])

    done = init(discs(here / "toy", write=write))
    assert done.config.data.label_map == {0: 0, 3: 1}
    assert any("255" in problem for problem in done.problems)
    assert "# Note: pixels with the value 255 in the labels are treated as not labelled" in done.path.read_text()
    trained("toy.yaml", here / "run")


def test_colours(here):
    palette = np.array([[10, 20, 30], [200, 0, 60]], np.uint8)
    folder = discs(here / "toy", write=lambda path, label: png(path, palette[label].transpose(2, 0, 1)))
    (folder / "class_dict.csv").write_text("name,r,g,b\nsoil,10,20,30\ntree,200,0,60\n")
    config = init(folder).config
    assert config.data.label_map == "colors"
    assert [(item.name, item.color) for item in config.data.classes] == [("soil", "#0a141e"), ("tree", "#c8003c")]
    trained("toy.yaml", here / "run")


def polygons_of(label, name="disc"):
    return [
        {"type": "Feature", "properties": {"classification": {"name": name}}, "geometry": outline}
        for outline, value in outlines_of(label, mask=label > 0)
        if value
    ]


def test_polygons(here):
    def write(path, label):
        tree = {"type": "FeatureCollection", "features": polygons_of(label)}
        path.with_name(f"{path.name}.geojson").write_text(json.dumps(tree))

    done = init(discs(here / "toy", write=write))
    assert done.config.data.class_names == ["background", "disc"]
    share = np.mean([shapes(seed)[1].mean() for seed in range(3)])
    assert done.found["disc"].startswith(f"{100 * share:.1f} %")
    trained("toy.yaml", here / "run")


def test_polygons_of_several_classes_at_one_place_are_said(here):
    def write(path, label):
        cut = np.where(np.arange(label.shape[1]) < 50, label, 0)
        names = {"disc": label, "left": cut} if write.overlap else {"left": cut, "right": label - cut}
        tree = {"type": "FeatureCollection", "features": [one for n, m in names.items() for one in polygons_of(m, n)]}
        path.with_name(f"{path.name}.geojson").write_text(json.dumps(tree))

    write.overlap = True
    done = init(discs(here / "over", write=write))
    labels = [shapes(seed)[1][0] for seed in range(3)]
    share = sum(label[:, :50].sum() for label in labels) / sum(label.sum() for label in labels)
    (told,) = [problem for problem in done.problems if "data.overlapping: true" in problem]
    assert told.startswith(f"{share:.0%} of the area of the polygons lies in polygons of several classes")
    write.overlap = False
    assert init(discs(here / "apart", write=write)).problems == ()


def test_names_of_classes_from_a_list(here):
    folder = make_data_set(here / "toy")
    (folder / "classes.txt").write_text("soil\ntree\n")
    assert init(folder).config.data.class_names == ["soil", "tree"]


@pytest.mark.parametrize(
    ("names", "values", "found", "told"),
    [
        (
            "box\ndisc",
            (1, 2),
            ["box", "disc"],
            ["classes.txt has a name for each value of the labels: 1 is box, 2 is disc"],
        ),
        (
            "no\nyes",
            (0, 255),
            ["no", "yes"],
            ["classes.txt has a name for each value of the labels: 0 is no, 255 is yes"],
        ),
        ("a\nb\nc", (0, 1), ["a", "b"], ["classes.txt names what no label has, which is left out: the value 2 is c"]),
        (
            "a\nb",
            (0, 1, 2),
            ["a", "b", "class 2"],
            ["classes.txt has no name for the value 2"],
        ),
        ("a\na", (0, 1), ["background", "foreground"], ["classes.txt has a name twice, so its names are not used"]),
        (
            "a\nb\nc\nd",
            (0, 1, 3),
            ["a", "b", "d"],
            ["classes.txt names what no label has, which is left out: the value 2 is c"],
        ),
    ],
)
def test_what_a_list_of_names_means_is_said_where_it_is_guessed(here, names, values, found, told):
    label = np.resize(np.repeat(np.array(values, np.uint8), [64, *(16 for _ in values[1:])]), (1, 64, 64))
    folder = discs(here / "toy", write=lambda path, _: png(path, label))
    (folder / "classes.txt").write_text(names)
    done = init(folder, here / "other.yaml")
    assert done.config.data.class_names == found
    assert list(done.problems) == told
    assert f"# To train: foveate train {here / 'other.yaml'} " in done.path.read_text()


def test_colours_without_a_name_and_names_without_a_label_are_said(here):
    palette = np.array([[10, 20, 30], [200, 0, 60]], np.uint8)
    folder = discs(here / "toy", write=lambda path, label: png(path, palette[label].transpose(2, 0, 1)))
    (folder / "class_dict.csv").write_text("name,r,g,b\nsoil,10,20,30\ntree,0,0,255\n")
    done = init(folder)
    assert done.config.data.class_names == ["soil", "colour c8003c"]
    assert list(done.problems) == [
        "class_dict.csv has no name for #c8003c",
        "class_dict.csv names what no label has, which is left out: #0000ff is tree",
    ]


def test_other_folders_and_images_without_labels_get_a_manifest(here):
    folder = make_data_set(here / "toy")
    (folder / "masks").rename(folder / "labels")
    (folder / "labels" / "b.png").unlink()
    (folder / "images" / "notes.txt").write_text("x")
    done = init(folder)
    assert done.config.data.manifest == Path("toy.csv").resolve()
    assert any("1 images without labels are left out: b" in problem for problem in done.problems)
    assert Path("toy.csv").read_text().count("\n") == 4
    trained("toy.yaml", here / "run")


def test_one_scene_is_cut_into_regions(here):
    folder = discs(here / "toy", names="a", write=lambda path, label: png(path, label[None]))
    done = init(folder)
    assert [path.name for path in done.files] == ["toy.yaml", "toy.csv", "toy.train.geojson", "toy.val.geojson"]
    run = trained(done.path, here / "run")
    pixels = {split: foveate.evaluate(run, split).tree()["images"][0]["pixels"] for split in ("train", "val")}
    assert pixels == {"train": 150 * 128, "val": 150 * 42}  # three quarters of 170 columns: centres below 127.5


def test_sixteen_bits_and_other_bands_are_measured(here):
    for seed, name in enumerate("abc"):
        image, label = shapes(seed)
        deep = np.concatenate([image, image[:2]]).astype(np.uint16) * 20
        write_image(here / "toy" / "images" / f"{name}.tif", deep)
        write_image(here / "toy" / "masks" / f"{name}.png", label)
    data = init(here / "toy").config.data
    assert data.in_channels == 5
    assert data.bands == [1, 2, 3, 4, 5]
    assert data.scale == pytest.approx(5100, rel=0.1)
    assert data.mean[0] == pytest.approx(image.mean() * 20 / data.scale, rel=0.3)
    trained("toy.yaml", here / "run")


@pytest.mark.parametrize(("names", "colours"), [(("DAPI", "FITC", "Cy5"), False), (("red", "green", "blue"), True)])
def test_dim_stains_are_measured_and_not_mixed_with_bright_ones(here, names, colours):
    """Saturation mixes the bands, and so does the contrast of colours."""
    for seed, name in enumerate("abc"):
        image, label = shapes(seed)
        stains = image * np.array([200, 20, 1])[:, None, None] + 100
        with open_dataset(write_image(here / "toy" / "images" / f"{name}.tif", stains.astype(np.uint16)), "r+") as file:
            file.descriptions = names
        write_image(here / "toy" / "masks" / f"{name}.png", label)
    data = init(here / "toy").config.data
    assert data.augmentation.color_jitter == ((0.2, 0.2, 0.1) if colours else (0.2, 0.2))
    for band, factor in enumerate((200, 20, 1)):
        measured = np.concatenate([shapes(seed)[0][band].ravel() for seed in range(3)]) * float(factor)
        assert data.mean[band] * data.scale == pytest.approx(measured.mean() + 100, rel=0.03)
        assert data.std[band] * data.scale == pytest.approx(measured.std(), rel=0.03)


def deep_with_a_border(folder, border, **profile):
    """Images of 16 bits whose left border holds one value, and the mean of the rest."""
    inside = []
    for seed, name in enumerate("abc"):
        image, label = shapes(seed)
        deep = image.astype(np.int16) * 20
        inside.append(deep[:, :, 30:].mean())
        deep[:, :, :30] = border
        write_image(folder / "images" / f"{name}.tif", deep, **profile)
        write_image(folder / "masks" / f"{name}.png", label)
    return np.mean(inside)


def test_pixels_without_data_do_not_count_in_scale_and_mean(here):
    mean = deep_with_a_border(here / "toy", -32768, nodata=-32768)
    done = init(here / "toy")
    assert done.config.data.scale == pytest.approx(5100, rel=0.1)
    assert done.config.data.mean[0] * done.config.data.scale == pytest.approx(mean, rel=0.1)
    assert done.problems == ()


def test_a_value_far_from_all_others_is_said_and_may_be_called_nodata(here):
    deep_with_a_border(here / "toy", -32768)
    done = init(here / "toy")
    (said,) = done.problems
    assert "are -32768, far from all others" in said
    assert said.endswith(f"foveate init {here / 'toy'} data.nodata=-32768 --overwrite")
    again = init(here / "toy", overrides=["data.nodata=-32768"], overwrite=True)
    assert again.problems == ()
    assert again.config.data.nodata == -32768
    assert again.config.data.scale == pytest.approx(5100, rel=0.1)


def test_the_property_of_the_class_may_be_named(here):
    def write(path, label):
        features = [{**one, "properties": {"landuse": "disc"}} for one in polygons_of(label)]
        tree = {"type": "FeatureCollection", "features": features}
        path.with_name(f"{path.name}.geojson").write_text(json.dumps(tree))

    folder = discs(here / "toy", write=write)
    with pytest.raises(DatasetError, match=r"for example data\.vectors\.attribute=landuse"):
        init(folder)
    result = CliRunner().invoke(app, ["init", str(folder), "data.vectors.attribute=landuse"], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    config = RunConfig.load(Path("toy.yaml"))
    assert config.data.class_names == ["background", "disc"]
    assert (config.data.vectors.attribute, config.data.vectors.unlabelled) == ("landuse", "background")
    with pytest.raises(ConfigError, match=r"init takes data\.vectors"):
        init(folder, overrides=["data.scale=3"], overwrite=True)


def test_labels_that_number_objects_are_said_and_lossy_ones_refused(here):
    corners = [(20 + 25 * (k // 6), 8 + 25 * (k % 6)) for k in range(12)]

    def numbered(path, label):
        objects = np.zeros((1, *label.shape), np.uint16)
        for number, (row, col) in enumerate(corners):
            objects[0, row : row + 9, col : col + 9] = number + 1
        png(path, objects)

    (said,) = init(discs(here / "objects", write=numbered)).problems
    assert said.startswith("nearly each of the 12 values in the labels is one object in an image")

    def picture(path, label):
        write_image(path.with_name(f"{path.name}.jpg"), 200 * label[None])

    with pytest.raises(DatasetError, match=r"a\.jpg have lossy compression, which changes values; save them as PNG"):
        init(discs(here / "pictures", write=picture))


def test_polygons_outside_an_image_do_not_count_in_the_shares(here):
    def write(path, label):
        ring = [[85, -50], [600, -50], [600, 400], [85, 400], [85, -50]]  # covers the right half of the image
        outline = {"type": "Polygon", "coordinates": [ring]}
        one = {"type": "Feature", "properties": {"class": "disc"}, "geometry": outline}
        path.with_name(f"{path.name}.geojson").write_text(json.dumps({"type": "FeatureCollection", "features": [one]}))

    done = init(discs(here / "toy", write=write))
    assert done.found["disc"].startswith("50.0 %")
    assert done.found["background"].startswith("50.0 %")


@pytest.mark.parametrize(("deeper", "tissue"), [(1, "auto"), (20, False)])
def test_only_slides_in_colour_are_trained_on_tissue(here, deeper, tissue):
    for seed, name in enumerate("ab"):
        image, label = shapes(seed)
        pixels = image if deeper == 1 else image.astype(np.uint16) * deeper
        (here / "toy" / "images").mkdir(parents=True, exist_ok=True)
        about = {"resolution": (20000, 20000), "resolutionunit": "CENTIMETER", "photometric": "rgb"}
        tifffile.imwrite(here / "toy" / "images" / f"{name}.tif", pixels.transpose(1, 2, 0), **about)
        write_image(here / "toy" / "masks" / f"{name}.png", label)
    assert init(here / "toy").config.data.tissue == tissue


def test_maps_are_turned_and_photographs_with_a_sky_are_not(here):
    profile = {"crs": "EPSG:32632", "transform": Affine(0.5, 0, 500000, 0, -0.5, 5400000)}
    folder = discs(here / "map", write=lambda path, label: png(path, label[None]), **profile)
    flips = init(folder).config.data.augmentation
    assert flips.orientations == "d4"
    for i in range(8):
        image, label = shapes(i)
        label[:, :60] = 2
        image[:, :60] = 250
        write_image(here / "street" / "images" / f"{i}.png", image)
        write_image(here / "street" / "masks" / f"{i}.png", label)
    done = init(here / "street")
    assert done.config.data.augmentation.orientations == "horizontal"
    assert "up means something" in done.path.read_text()
    flat = init(make_data_set(here / "flat", names="abcdefgh")).config.data.augmentation
    assert flat.orientations == "d4"


def test_validation_takes_no_class_away_from_training(here):
    folder = make_data_set(here / "toy", names="abcdefghij")
    rare = shapes(4)[1]
    rare[0, :10, :10] = 2
    write_image(folder / "masks" / "e.png", rare)
    config = init(folder).config
    assert len(config.data.split.val) == 2
    assert "e" not in config.data.split.val


def test_what_is_no_data_set_is_refused(here):
    with pytest.raises(DatasetError, match="no folder of images"):
        init(here)
    (here / "images").mkdir()
    with pytest.raises(DatasetError, match="no folder of labels"):
        init(here)
    (here / "masks").mkdir()
    with pytest.raises(DatasetError, match="no image in"):
        init(here)
    noise = np.random.default_rng(0).integers(0, 40_000, (1, 90, 90)).astype(np.uint16)
    write_image(here / "images" / "a.tif", noise)
    write_image(here / "masks" / "a.tif", noise)
    with pytest.raises(DatasetError, match="256 different values"):
        init(here)


def test_nothing_is_replaced_without_asking(here):
    folder = make_data_set(here / "toy")
    init(folder)
    with pytest.raises(OutputExistsError):
        init(folder)
    assert init(folder, overwrite=True).path.exists()


def test_the_command_says_what_it_found_and_train_takes_the_folder(here):
    make_data_set(here / "toy")
    said = CliRunner().invoke(app, ["init", "toy"], catch_exceptions=False)
    assert said.exit_code == 0
    assert "foreground" in said.output
    assert "next: foveate train toy.yaml" in said.output
    Path("toy.yaml").unlink()
    run = trained("toy", here / "run")
    assert Path("toy.yaml").exists()
    assert run.config.name == "toy"
    again = CliRunner().invoke(app, ["train", "toy", "--out", "second", *SHORT], catch_exceptions=False)
    assert "using the existing" in again.output


def test_from_python(here):
    path = foveate.init(str(make_data_set(here / "toy")), "configs/mine.yaml")
    assert path == Path("configs/mine.yaml")
    run = foveate.train(path, "run", overrides=SHORT, progress=False)
    assert run.predict(shapes(9)[0]).classes.shape == (150, 170)


@pytest.mark.parametrize(
    ("name", "classes", "share", "val"), [("dubai", 5, 0.30, 1), ("idrid", 6, 0.95, 3), ("hrf", 2, 0.9, 3)]
)
def test_real_data(real_data, here, name, classes, share, val):
    config = init(real_data / name).config
    assert len(config.data.classes) == classes
    assert len(config.data.split.val) == val
    assert config.foveation.patch_size in (128, 256)
    assert config.data.augmentation.orientations == "d4"
