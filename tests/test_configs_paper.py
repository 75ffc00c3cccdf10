"""The paper's data sets: configurations that agree with the preparation, the networks and the methods."""

from pathlib import Path

import pytest

from foveate.foveation.config import name_of
from foveate.networks.build import network_cost
from foveate.paper.preparation import Cityscapes, DeepGlobe, Gleason2019
from foveate.runs.compare import fitting_estimators
from foveate.runs.config import RunConfig

CONFIGS = sorted((Path(__file__).parent.parent / "configs" / "paper").glob("*.yaml"))
RECIPES = {recipe.name: recipe for recipe in (Cityscapes(), DeepGlobe(), Gleason2019())}
BANKS = {
    "cityscapes": ((512, 640, 768, 896, 1024), 16),
    "deepglobe": ((500, 1000, 1500, 2000, 2448), 24),
    "gleason2019": ((1100, 2000, 2900, 3800, 4400), 44),
}


def test_every_data_set_has_its_three_sizes():
    assert {path.stem for path in CONFIGS} == {f"{name}{size}" for name in RECIPES for size in ("", "-small", "-quick")}


@pytest.mark.parametrize("path", CONFIGS, ids=lambda p: p.stem)
def test_configs_take_what_is_prepared(path, monkeypatch):
    monkeypatch.delenv("FOVEATE_DATA", raising=False)
    config = RunConfig.load(path)
    name, _, size = path.stem.partition("-")
    assert config.name == path.stem
    assert tuple(config.data.class_names) == RECIPES[name].classes
    assert config.data.manifest == Path(f"{path.stem if size == 'small' else name}/manifest.csv")
    assert RunConfig.parse(config.tree()) == config


@pytest.mark.parametrize("path", [path for path in CONFIGS if not path.stem.endswith("-small")], ids=lambda p: p.stem)
def test_configs_look_as_wide_as_the_paper(path):
    foveation = RunConfig.load(path).foveation
    assert (foveation.fields_of_view, foveation.overview_downsample) == BANKS[path.stem.partition("-")[0]]


@pytest.mark.parametrize("path", CONFIGS, ids=lambda p: p.stem)
def test_every_method_can_be_compared(path):
    config = RunConfig.load(path)
    estimators, others = fitting_estimators(config)
    assert set(others) <= {"cascade"}  # whose looks nest, which the paper's do not
    for name in estimators:
        assert name_of(config.changed([], name).foveation.estimator) == name


@pytest.mark.parametrize("path", CONFIGS, ids=lambda p: p.stem)
def test_the_network_takes_the_patch(path):
    config = RunConfig.load(path)
    names = config.network
    cost = network_cost(
        names.architecture,
        names.encoder,
        patch_size=config.foveation.patch_size,
        classes=len(config.data.classes),
        **names.options,
    )
    assert cost.multiply_adds > 0


def test_the_page_says_how_many_trainings_there_are():
    page = " ".join((CONFIGS[0].parents[2] / "docs/how-to/reproduce-the-paper.md").read_text().split())
    methods, _ = fitting_estimators(RunConfig.load(CONFIGS[0]))
    assert f"All {len(methods)} methods of five fields of view are {len(methods) - 1} trainings" in page
