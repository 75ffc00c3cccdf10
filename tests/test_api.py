"""The Python doors: names and paths in, arrays and files out."""

import pydoc
import re
import shutil
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn
from torch.utils.data import DataLoader

import foveate
from foveate.cascade import CascadeSegmenter
from foveate.errors import ConfigError, DatasetError, NetworkError, OutputExistsError, UnsupportedImageError
from foveate.runs.folder import RunFolder
from foveate.runs.predict_array import predict_array, scale_of
from foveate.runs.tuned import read_tuned
from toys import make_data_set, shapes, toy_config, write_config, write_image


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    root = tmp_path_factory.mktemp("api")
    make_data_set(root / "toy")
    write_config(root / "toy.yaml", toy_config(root))
    foveate.train(str(root / "toy.yaml"), str(root / "run"), overrides=["training.steps=60"], progress=False)
    return root


@pytest.fixture(scope="module")
def run(root):
    return foveate.load(str(root / "run"), device="cpu")


def written(run, path, out):
    result = run.predict(str(path), str(out), outputs=["classes", "probabilities"])
    with foveate.open_image(result.files.classes) as classes:
        return classes.read(foveate.Window.of(classes.size))[0], result


def test_an_array_gets_what_its_file_gets(run, root, tmp_path):
    image, _ = shapes(9)
    from_file, result = written(run, write_image(tmp_path / "new.png", image), tmp_path / "out")
    classes, probabilities = run.predict(image)
    assert result["width"] == 170
    assert np.array_equal(classes, from_file)
    assert classes.dtype == np.uint8
    assert 0 < classes.mean() < 1
    assert probabilities.shape == (2, 150, 170)
    assert np.allclose(probabilities.sum(axis=0), 1, atol=1e-5)
    assert np.array_equal(probabilities.argmax(axis=0), classes)


def test_a_run_is_shown_in_a_line(run):
    assert repr(run).startswith("Run(device=") and len(repr(run).splitlines()) == 1


def test_every_way_to_give_the_same_pixels_gives_the_same_classes(run):
    image, _ = shapes(9)
    expected = run.predict(image).classes
    same = {
        "channels last": image.transpose(1, 2, 0),
        "int64": image.astype(np.int64),
        "uint16 of small values": image.astype(np.uint16),
        "raw floats": image.astype(np.float32),
        "floats of one": image.astype(np.float64) / 255,
        "a tensor": torch.from_numpy(image),
        "not contiguous": np.asfortranarray(image),
    }
    for name, pixels in same.items():
        agreement = (run.predict(pixels).classes == expected).mean()
        assert agreement > 0.995, name


@pytest.mark.parametrize(
    ("shape", "message"),
    [
        ((3, 90, 3), 'axes="HWC" or "CHW"'),
        ((90, 80, 4), r"array\[\.\.\., :3\]"),
        ((2, 3, 90, 80), "give one image"),
        ((90,), "give one image"),
        ((0, 90, 3), "give one image"),
    ],
)
def test_shapes_that_are_no_single_image_are_refused(run, shape, message):
    with pytest.raises(UnsupportedImageError, match=message):
        run.predict(np.zeros(shape, np.uint8))


def test_axes_that_are_named_are_taken(run):
    image, _ = shapes(9, 3, 40)
    expected = run.predict(image, axes="CHW").classes
    assert expected.shape == (3, 40)
    assert np.array_equal(run.predict(image.transpose(1, 2, 0), axes="HWC").classes, expected)
    with pytest.raises(UnsupportedImageError, match="HWC"):
        run.predict(image, axes="WHC")


def test_values_of_another_kind_are_refused_unless_their_scale_is_given(run):
    image, _ = shapes(9)
    for wrong in (image.astype(np.uint16) * 257, image - 300.0, image.astype(np.float32) * 10):
        with pytest.raises(DatasetError, match="trained on uint8"):
            run.predict(wrong)
    scaled = run.predict(image.astype(np.uint16) * 257, scale=65535)
    assert (scaled.classes == run.predict(image).classes).mean() > 0.995
    with pytest.raises(UnsupportedImageError, match="bool"):
        run.predict(image > 100)


def test_another_number_of_bands_is_refused_as_of_files(run):
    image, _ = shapes(9)
    with pytest.raises(
        DatasetError, match=r"the array has 1 band, and the run was trained on 3; .*data\.mismatch=allow"
    ):
        run.predict(image[0])
    allowed = foveate.load(run.path, device="cpu", overrides=["data.mismatch=allow"])
    repeated = np.repeat(image[:1], 3, axis=0)
    assert np.array_equal(allowed.predict(image[0]).classes, run.predict(repeated).classes)


def test_values_of_another_unit_are_refused_as_of_files(run):
    image, _ = shapes(9)
    for twice in (image.astype(np.float32) / 255 / 255, torch.from_numpy(image) / 255 / 255):
        with pytest.raises(DatasetError, match="differs from the images that the run was trained on: its values range"):
            run.predict(twice)
    assert run.predict(twice, scale=1 / 255).classes.shape == image.shape[1:]


def test_pixels_of_an_array_without_a_value_get_no_class(run):
    image, _ = shapes(9)
    expected = run.predict(image).classes
    nothing = np.zeros(image.shape[1:], bool)
    nothing[:40, 30:] = True
    far = np.roll(nothing, (30, -30), (0, 1)) | nothing | np.roll(nothing, (30, 0), (0, 1))
    holed = {
        "nan": np.where(nothing, np.nan, image.astype(np.float32)),
        "a masked array": np.ma.masked_array(image, np.broadcast_to(nothing, image.shape)),
        "masked and channels last": np.ma.masked_array(image, np.broadcast_to(nothing, image.shape)).transpose(1, 2, 0),
    }
    for name, pixels in holed.items():
        classes, probabilities = run.predict(pixels)
        assert np.array_equal(classes == 255, nothing), name
        assert np.array_equal(np.isnan(probabilities).all(axis=0), nothing), name
        assert (classes[~far] == expected[~far]).mean() > 0.99, name
    partly = image.astype(np.float32)
    partly[0, nothing] = np.nan
    assert (run.predict(partly).classes != 255).all()


def test_what_values_are_divided_by_follows_what_was_trained_on(run):
    data = run.config.data
    ramp = np.linspace(0, 1, 50)

    def scale(values, trained, config=data):
        return scale_of(values, values.dtype, config, np.dtype(trained))

    assert scale(ramp, np.uint16) == 1
    assert scale(ramp * 60000, np.uint16) == 65535
    assert scale((ramp * 60000).astype(np.int32), np.uint16) == 65535
    assert scale(ramp.astype(np.float32), np.float64) == 1
    assert scale(ramp[:0], np.uint16) == 65535
    divided = data.model_copy(update={"scale": 10_000.0})
    assert scale((ramp * 9000).astype(np.uint16), np.uint16, divided) == 10_000
    assert scale(ramp, np.uint16, divided) == pytest.approx(10_000 / 65535)
    for array, trained in ((ramp * 255).astype(np.uint8), np.uint16), ((ramp * 255).astype(np.uint8), np.float32):
        with pytest.raises(DatasetError, match="scale="):
            scale(array, trained)


@pytest.mark.parametrize("nothing", [np.nan, np.inf, -np.inf, 1e35, "masked"])
def test_values_that_mean_nothing_do_not_say_what_an_array_holds(run, nothing):
    image, _ = shapes(9)
    given = np.moveaxis(image, 0, -1).astype(np.float32)
    hidden = np.zeros(given.shape, np.bool_)
    hidden[:40, :50] = True
    for values in (given, given / 255):
        array = np.where(hidden, -9999 if nothing == "masked" else nothing, values).astype(np.float32)
        classes, probabilities = run.predict(np.ma.masked_array(array, hidden) if nothing == "masked" else array)
        assert np.array_equal(classes == 255, hidden[..., 0])
        assert np.isnan(probabilities[:, :40, :50]).all()
        assert np.isfinite(probabilities[:, 40:]).all()
    assert (run.predict(np.full((64, 64, 3), np.nan, np.float32)).classes == 255).all()


def test_one_text_is_not_taken_for_a_list_of_letters(run, root, tmp_path):
    one = "inference.overlap=0"
    for work in (
        lambda: run.predict("image.png", tmp_path, overrides=one),
        lambda: foveate.load(root / "run", overrides=one),
        lambda: foveate.train(root / "toy.yaml", tmp_path / "run", overrides=one),
        lambda: foveate.init(root / "toy", tmp_path / "a.yaml", overrides=one),
    ):
        with pytest.raises(ConfigError, match=re.escape(f"overrides is a list, such as overrides=['{one}']")):
            work()
    with pytest.raises(ConfigError, match=re.escape("such as overrides=['training.steps=3']")):
        foveate.train(root / "toy.yaml", tmp_path / "run", overrides={"training.steps": 3})
    with pytest.raises(ConfigError, match=re.escape("outputs is a list, such as outputs=['classes']")):
        run.predict("image.png", tmp_path, outputs="classes")
    with pytest.raises(ConfigError, match="estimators is a list"):
        foveate.compare(root / "toy.yaml", "fixed_1")


def test_settings_of_inference_are_taken_and_others_named(run, tmp_path):
    image, _ = shapes(9)
    assert not np.array_equal(run.predict(image, overrides=["inference.overlap=0"])[1], run.predict(image)[1])
    with pytest.raises(ConfigError, match=r"training\.steps=3 cannot be changed"):
        run.predict(image, overrides=["training.steps=3"])
    with pytest.raises(ConfigError, match="give a folder"):
        run.predict("image.png")
    for given, said in ((image.tolist(), "type list"), (Image.fromarray(image[0]), "type Image"), (None, "NoneType")):
        with pytest.raises(ConfigError, match=f"{said}; give a path, or an array") as refused:
            run.predict(given)
        assert len(str(refused.value)) < 200
    with pytest.raises(ConfigError, match=r"roi is an option for a file; for an array there are budget, .*scale"):
        run.predict(image, roi="here.geojson")
    with pytest.raises(ConfigError, match=r"axes is an option for an array; for a file there are budget, .*memory"):
        run.predict("image.png", tmp_path, axes="HWC")
    with pytest.raises(ConfigError, match="memmory is no option"):
        foveate.predict(run, "image.png", tmp_path, memmory="2GB")
    with pytest.raises(ConfigError, match="outputs is an option for a file"):
        run.predict(image, outputs=["confidence"])
    for scale in (0, -1, float("nan"), float("inf")):
        with pytest.raises(ConfigError, match=r"scale=.* above 0"):
            run.predict(image, scale=scale)
    with pytest.raises(ConfigError, match="leave out the folder"):
        run.predict(image, tmp_path)


def test_a_run_trains_evaluates_and_predicts_from_strings(root, tmp_path):
    evaluation = foveate.evaluate(str(root / "run"), "test")
    assert 0 < evaluation.scores.miou <= 1
    result = foveate.predict(
        str(root / "run"), str(root / "toy/images/d.png"), str(tmp_path / "out"), budget="all", memory="4GB"
    )
    assert result.files.classes.exists()
    again = foveate.load(str(root / "run"), overrides=["inference.budget=all", "inference.planner=pyramid"])
    assert result["plan"]["inference"]["budget"] == again.config.inference.budget == "all"


def test_a_run_is_tuned_and_then_spends_passes_as_was_chosen(root, tmp_path):
    shutil.copytree(root / "run", tmp_path / "run")
    run = foveate.load(tmp_path / "run")
    tuned = run.tune(budgets=[1.0])
    (chosen,) = read_tuned(tmp_path / "run/tuned.json")
    assert not run.tuned
    assert tuned.tuned == (chosen,)
    known = tuned.config.inference
    assert [*known.looks] == [*chosen.looks]
    assert known == foveate.load(tmp_path / "run").config.inference
    with pytest.raises(OutputExistsError):
        run.tune(budgets=[1.0])
    with pytest.raises(ConfigError, match=r"foveate\.load"):
        replace(run, path=None).tune()


def test_sizes_of_auto_are_found_for_a_prediction_with_a_budget_too(root):
    run = foveate.load(root / "run", device="cpu", overrides=["inference.batch_size=auto"])
    assert run.config.inference.batch_size == 16
    assert run._settled("all", None, ()).config.inference.batch_size == 16


def test_configurations_and_folders_are_found_by_strings_too(root):
    config = foveate.RunConfig.load(str(root / "toy.yaml"), ["training.steps=7"])
    assert config.training.steps == 7
    assert RunFolder(str(root / "run")) == RunFolder(root / "run")
    assert RunFolder(str(root / "run")).trained_file.is_file()


def test_methods_are_compared(root, tmp_path):
    result = foveate.compare(
        str(root / "toy.yaml"), ["fixed_1"], str(tmp_path / "both"), seeds=[0], devices="cpu",
        overrides=["training.steps=2", "training.validate_every=2"],
    )  # fmt: skip
    assert not result.failed
    assert [row.estimator for row in result.table.rows] == ["fixed_1"]
    assert all(path.exists() for path in result.files)


def test_patches_feed_a_loop_of_ones_own(root):
    data_set = foveate.patches(str(root / "toy.yaml"), length=12)
    batch = next(iter(DataLoader(data_set, batch_size=12, num_workers=1)))
    assert batch.image.shape == (12, 3, 32, 32)
    assert batch.image.dtype == torch.float32
    assert batch.label.shape == (12, 32, 32)
    assert batch.label.dtype == torch.int64
    assert set(batch.field_of_view.tolist()) == {32, 64}
    assert torch.equal(batch.image[3], data_set[3].image)
    assert [len(foveate.patches(str(root / "toy.yaml"), split)) for split in ("train", "val")] == [24, 8]
    # The discs are bright: labels lie over their own pixels.
    means = [batch.image[batch.label[:, None].expand_as(batch.image) == label].mean() for label in (0, 1)]
    assert means[1] > means[0] + 0.5


def test_patches_of_a_split_without_images_are_refused(root):
    with pytest.raises(DatasetError, match="no image is in the split"):
        foveate.patches(str(root / "toy.yaml"), "val", overrides=["data.split={val: []}"])
    with pytest.raises(ConfigError, match="train, val, test"):
        foveate.patches(str(root / "toy.yaml"), "valid")


class Wrapped(nn.Module):
    def __init__(self, wrap):
        super().__init__()
        self.layer, self.wrap = nn.Conv2d(3, 2, 3, padding=1), wrap

    def forward(self, image):
        return self.wrap(self.layer(image))


@pytest.mark.parametrize(
    "wrap",
    [
        lambda logits: SimpleNamespace(logits=logits, loss=None),
        lambda logits: {"logits": logits},
        lambda logits: {"out": logits, "aux": logits},
    ],
    ids=["transformers", "dictionary", "torchvision"],
)
def test_networks_that_wrap_their_logits_are_taken(wrap):
    scales = foveate.ScaleSet(16, (16, 32))
    segmenter = foveate.FoveatedSegmenter(Wrapped(wrap), scales)
    plain = foveate.FoveatedSegmenter(segmenter.network.layer, scales, policy=segmenter.policy)
    image = torch.rand(1, 3, 40, 50)
    assert torch.equal(segmenter.eval()(image), plain.eval()(image))


def test_they_are_taken_as_looks_of_a_cascade_too():
    segmenter = CascadeSegmenter(Wrapped(lambda logits: {"out": logits}), 16, (32, 16)).eval()
    plain = CascadeSegmenter(segmenter.network.networks[0].layer, 16, (32, 16)).eval()
    plain.network.entrances.load_state_dict(segmenter.network.entrances.state_dict())
    for mine, its in zip(segmenter.network.networks, plain.network.networks, strict=True):
        its.load_state_dict(mine.layer.state_dict())
    image = torch.rand(1, 3, 40, 50)
    assert torch.equal(segmenter(image), plain(image))


@pytest.mark.parametrize("wrap", [lambda logits: {"masks": logits}, lambda logits: (logits,), lambda _: None])
def test_networks_that_return_something_else_are_refused(wrap):
    segmenter = foveate.FoveatedSegmenter(Wrapped(wrap), foveate.ScaleSet(16, (16,)))
    with pytest.raises(NetworkError, match="must return logits"):
        segmenter(torch.rand(1, 3, 40, 50))


def test_an_array_of_a_run_with_a_pixel_size_keeps_its_size(run):
    data = run.config.data.model_copy(update={"pixel_size": "1 um"})
    fine = foveate.Run(run.config.model_copy(update={"data": data}), run.segmenter, run.device)
    image, _ = shapes(9)
    enlarged = image.repeat(2, axis=1).repeat(2, axis=2)
    classes, probabilities = predict_array(fine, enlarged, pixel_size="0.5 um")
    assert classes.shape == (300, 340)
    assert np.allclose(probabilities.sum(axis=0), 1, atol=1e-5)
    assert (classes[::2, ::2] == run.predict(image).classes).mean() > 0.97
    with pytest.raises(DatasetError, match="pixel_size"):
        predict_array(fine, image)


def test_help_reads_well():
    text = pydoc.render_doc(foveate.predict, renderer=pydoc.plaintext)
    assert "ParamSpec" not in text
    assert "budget: most forward passes per megapixel" in text
