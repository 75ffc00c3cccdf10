import json
import shutil

import pytest
import torch
from typer.testing import CliRunner

from foveate.cli.app import app
from foveate.errors import ConfigError, OutputExistsError
from foveate.foveation.estimator import Draw
from foveate.foveation.estimators import CoarseFirst, FixedScale
from foveate.geometry import Size, ceil_div
from foveate.inference.config import InferenceConfig
from foveate.looks.pyramid import PyramidGrid, PyramidLook
from foveate.runs.evaluate import evaluate_run
from foveate.runs.folder import RunFolder, load_run
from foveate.runs.predict import predict
from foveate.runs.tune import tune
from foveate.runs.tuned import Trial, best_of, least_passes, pays_for, read_tuned, ways_of_looking, with_tuned
from toys import make_data_set, toy_config, write_config


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    return train_toy(tmp_path_factory.mktemp("tune"), {"name": "coarse_first"})


def train_toy(root, estimator):
    make_data_set(root / "toy")
    tree = toy_config(root)
    tree["foveation"]["estimator"] = estimator
    path = root / "run"
    arguments = ["train", str(write_config(root / "toy.yaml", tree)), "--out", str(path), "--accelerator", "cpu"]
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == 0, result.output
    assert f"next: foveate {'tune' if estimator['name'] == 'coarse_first' else 'evaluate'} " in result.output
    return path


def test_ways_of_looking_hold_every_fixed_view_and_cost_no_more_than_they_say():
    found = ways_of_looking((64, 128, 256))
    assert {looks for looks in found if len(looks) == 1} == {
        (PyramidLook(view, keep),) for view in (64, 128, 256) for keep in (0.5, 0.75, 1.0)
    } | {(PyramidLook(256, 0.25),)}
    assert len(found) == len(set(found))
    for looks in found:
        assert looks == tuple(sorted(looks, key=lambda look: look.view * look.keep))
        roots = least_passes(looks, Size(512, 512))
        assert roots == ceil_div(512, PyramidGrid.of(Size(1, 1), looks).sides[-1]) ** 2


def test_one_field_of_view_is_looked_at_again_with_wider_margins():
    found = ways_of_looking((256,), target=64)
    assert {looks for looks in found if len(looks) > 1} == {
        (PyramidLook(256, few), PyramidLook(256, more)) for few, more in ((0.25, 0.5), (0.25, 1.0), (0.5, 1.0))
    }
    beside = (PyramidLook(128, 0.5), PyramidLook(256, 0.25), PyramidLook(256, 1.0))
    assert beside in ways_of_looking((64, 128, 256))


def test_a_budget_of_one_pass_a_target_pays_for_every_fixed_view_on_any_image():
    sizes = [Size(150, 170)]  # whole windows of 64 reach far over its borders
    budget = 1e6 / 64**2
    ways = [looks for looks in ways_of_looking((64, 128)) if pays_for(budget, looks, sizes)]
    assert {looks for looks in ways if len(looks) == 1} == {
        (PyramidLook(64, 1.0),), (PyramidLook(128, 0.5),), (PyramidLook(128, 0.75),), (PyramidLook(128, 1.0),)
    }  # fmt: skip
    for looks in ways:
        if len(looks) > 1:
            assert least_passes(looks, sizes[0]) <= budget * sizes[0].megapixels


def test_the_best_of_each_budget_is_kept():
    one, other = ((looks, (1.0,)) for looks in ways_of_looking((64, 128))[:2])
    trials = [Trial(10.0, *one, 0.5, 9.0), Trial(10.0, *other, 0.6, 9.5), Trial(5.0, *one, 0.4, 5.0)]
    assert [(choice.budget, choice.miou) for choice in best_of(trials)] == [(5.0, 0.4), (10.0, 0.6)]


NARROW = Trial(100.0, (PyramidLook(64, 1.0), PyramidLook(128, 1.0)), (4.0, 1.0), 0.5, 91.0)
FIXED = Trial(50.0, (PyramidLook(128, 1.0),), (1.0,), 0.4, 60.0)


@pytest.mark.parametrize(
    ("budget", "looks", "settled"),
    [
        (60.0, FIXED.looks, "all"),  # one look is paid for as it is
        (99.0, NARROW.looks, 99.0),  # a whole cover costs a little more at the border
        (91.0, NARROW.looks, 91.0),  # what it cost, which the report plots
        (85.0, FIXED.looks, "all"),
        (500.0, NARROW.looks, 500.0),
        ("all", NARROW.looks, "all"),
        ("fixed", NARROW.looks, "fixed"),  # one pass in 64 x 64 pixels: 244 a megapixel
        ("41%", NARROW.looks, "41%"),  # of those
        ("36%", FIXED.looks, "all"),
        ("20.5%", FIXED.looks, "all"),
        ("8 %", None, "8 %"),
        (None, NARROW.looks, "fixed"),
        (20.0, None, 20.0),
        ("30 s", None, "30 s"),
    ],
)
def test_a_budget_gets_the_largest_choice_that_it_pays_for(budget, looks, settled):
    config = with_tuned(InferenceConfig(budget=budget), [FIXED, NARROW], CoarseFirst(), 64)
    assert (config.looks, config.budget) == (looks, settled)
    assert config.planner == (None if looks is None else "pyramid")


def test_without_a_budget_the_largest_that_was_tuned_is_spent():
    assert with_tuned(InferenceConfig(), [FIXED, NARROW], FixedScale(), 64).budget == NARROW.budget
    assert with_tuned(InferenceConfig(budget="all"), [FIXED, NARROW], FixedScale(), 64).budget == "all"


def test_what_is_given_is_not_overruled():
    for given in (InferenceConfig(looks=((64, 0.5),)), InferenceConfig(planner="per_target")):
        assert with_tuned(given, [NARROW], FixedScale(), 64) == given


AUGMENTED = Trial(200.0, FIXED.looks, (1.0,), 0.6, 200.0, "flips")


@pytest.mark.parametrize(
    ("given", "looks", "tta"),
    [
        ({"budget": 250.0}, FIXED.looks, "flips"),  # the passes of the augmentation are in its budget
        ({"budget": 150.0}, NARROW.looks, None),
        ({"budget": 250.0, "tta": "flips"}, FIXED.looks, "flips"),  # 50 times 4; 100 times 4 is too much
        ({"budget": 450.0, "tta": "flips"}, NARROW.looks, "flips"),
    ],
)
def test_augmentation_is_chosen_where_its_passes_are_paid_for(given, looks, tta):
    config = with_tuned(InferenceConfig.parse(given), [FIXED, NARROW, AUGMENTED], CoarseFirst(), 64)
    assert (config.looks, config.tta) == (looks, tta)


def test_tuning_with_augmentation_pays_for_its_passes(tmp_path):
    path = train_toy(tmp_path, {"name": "fixed", "index": 1})
    trials = tune(path, budgets=(1.0, 4.0), ttas=["flips"])
    plain, flips = ([trial for trial in trials if trial.tta == tta] for tta in (None, "flips"))
    allowed = round(4e6 / 32**2, 3)
    assert {trial.budget for trial in flips} == {allowed, round(1e6 / 32**2, 3)}
    for trial in flips:
        same = next(t for t in plain if (t.budget, t.looks, t.fusion) == (allowed, trial.looks, trial.fusion))
        if len(trial.looks) == 1:
            assert trial.passes_per_megapixel == 4 * same.passes_per_megapixel
        else:
            assert trial.passes_per_megapixel <= trial.budget
    trial = max((t for t in flips if t.budget == allowed), key=lambda t: t.miou)
    overrides = ["inference.tta=flips", f"inference.looks={[list(look) for look in trial.looks]}"]
    again = evaluate_run(path, "val", overrides=[*overrides, "inference.planner=pyramid", "inference.budget=all"])
    assert again.scores.miou == pytest.approx(trial.miou, abs=0.05)
    assert again.cost["passes_per_megapixel"] == pytest.approx(trial.passes_per_megapixel, rel=0.02)
    chosen = read_tuned(path / "tuned.json")
    assert [one.tta for one in chosen] == [
        max((t for t in trials if t.budget == one.budget), key=lambda t: t.miou).tta for one in chosen
    ]


def test_tuning_chooses_on_validation_images_and_is_used_by_what_follows(trained):
    trials = tune(trained, budgets=(0.5, 1.0))
    budgets = sorted({trial.budget for trial in trials})
    assert budgets == [round(share * 1e6 / 32**2, 3) for share in (0.5, 1.0)]
    for budget in budgets:
        group = [trial for trial in trials if trial.budget == budget]
        assert [trial.miou for trial in group] == sorted((trial.miou for trial in group), reverse=True)
        assert any(len(trial.looks) == 1 for trial in group)
    chosen = read_tuned(trained / "tuned.json")
    assert [one.miou for one in chosen] == [max(t.miou for t in trials if t.budget == b) for b in budgets]
    run = load_run(trained, overrides=["inference.budget=fixed"])
    assert run.config.inference.looks == chosen[-1].looks
    again = evaluate_run(trained, "val", overrides=[f"inference.budget={budgets[-1]}"])
    assert again.scores.miou == pytest.approx(chosen[-1].miou, abs=0.05)
    with pytest.raises(OutputExistsError):
        tune(trained)


def test_looks_that_could_be_tuned_and_are_not_are_said(trained, tmp_path):
    run = tmp_path / "run"
    shutil.copytree(trained, run, ignore=shutil.ignore_patterns("tuned.json"))
    note = f"`foveate tune {run}`"
    assert note in RunFolder(run).note_of_tuning(RunFolder(run).configured())
    given = RunFolder(run).configured(["inference.looks=[[64, 1]]"])
    assert not RunFolder(run).note_of_tuning(given)
    assert not RunFolder(run).note_of_tuning(RunFolder(run).configured(["inference.planner=per_target"]))
    said = CliRunner().invoke(app, ["evaluate", str(run), "--device", "cpu", "--no-maps"])
    assert said.exit_code == 0, said.output
    assert "not tuned" in said.output
    image = next((trained.parent / "toy" / "images").iterdir())
    said = CliRunner().invoke(app, ["predict", str(run), str(image), "--out", str(tmp_path / "out"), "--device", "cpu"])
    assert said.exit_code == 0, said.output
    assert "not tuned" in said.output
    tune(run, budgets=[1.0])
    assert not RunFolder(run).note_of_tuning(RunFolder(run).configured())


def test_a_fixed_field_of_view_chooses_where_it_needs_a_margin(tmp_path):
    path = train_toy(tmp_path, {"name": "fixed", "index": 1})
    target, wide = 32, 64
    tune(path, budgets=(0.5,))
    tried = [trial["looks"] for trial in json.loads((path / "tuned.json").read_text())["trials"]]
    assert [[wide, 0.5], [wide, 1.0]] in tried
    budget = 0.5e6 / target**2
    looks = f"inference.looks=[[{wide},0.5],[{wide},1.0]]"
    result = evaluate_run(path, "val", overrides=["inference.planner=pyramid", f"inference.budget={budget}", looks])
    once = 1e6 / wide**2
    assert once < result.cost["passes_per_megapixel"] <= budget


def test_the_command_prints_what_it_tried(trained):
    result = CliRunner().invoke(app, ["tune", str(trained), "--budgets", "1", "--overwrite", "--device", "cpu"])
    assert result.exit_code == 0, result.output
    assert "64 px" in result.output and "tuned.json" in result.output
    assert len(json.loads((trained / "tuned.json").read_text())["trials"]) >= 6
    wrong = CliRunner().invoke(app, ["tune", str(trained), "--budgets", "none"])
    assert wrong.exit_code == 2


def test_a_budget_of_seconds_is_settled_before_the_run_and_kept_when_it_is_resumed(trained, tmp_path, monkeypatch):
    monkeypatch.setattr("foveate.inference.runner.passes_per_second", lambda *_: 20.0)
    folder = shutil.copytree(trained, tmp_path / "run")
    looks = [[32, 1.0], [64, 1.0]]
    chosen = {"budget": 400.0, "looks": looks, "fusion": [10.0, 1.0], "miou": 0.5}
    (folder / "tuned.json").write_text(json.dumps({"chosen": [chosen]}))
    run = load_run(folder, overrides=["inference.budget=1.5 s", "inference.planner=pyramid"])
    image = trained.parent / "toy" / "images" / "d.png"
    summary = predict(run, image, tmp_path)
    settled = summary["plan"]["inference"]
    assert settled["budget"] == round(30 / (150 * 170 / 1e6), 3)
    assert settled["looks"] == looks  # those chosen for so many passes
    assert summary["passes"] <= 30
    monkeypatch.setattr("foveate.inference.runner.passes_per_second", lambda *_: 900.0)
    assert predict(run, image, tmp_path, resume=True)["plan"]["inference"] == settled


def test_budgets_that_pay_for_nothing_are_refused(trained):
    with pytest.raises(ConfigError, match="are too small; the widest look alone costs more"):
        tune(trained, budgets=(0.001,), overwrite=True)


def test_a_damaged_choice_says_so(tmp_path):
    (tmp_path / "tuned.json").write_text('{"chosen": [{"budget": 3}]}')
    with pytest.raises(ConfigError, match=r"is damaged .*foveate tune"):
        read_tuned(tmp_path / "tuned.json")


def test_coarse_first_passes_one_scale_a_location():
    estimator = CoarseFirst()
    for scales in (1, 4):
        reading = estimator.reads(scales)
        assert (reading.scales, reading.drawn, reading.passes) == (tuple(range(scales)), True, 1)
    drawn = torch.tensor([[0.0, 1.0], [1.0, 0.0]])
    assert torch.equal(estimator.weights(drawn, Draw()), drawn)


def test_several_processes_find_what_one_finds(trained, tmp_path):
    run = shutil.copytree(trained, tmp_path / "run", ignore=shutil.ignore_patterns("tuned.json"))
    assert tune(run, budgets=(1.0,)) == tune(run, budgets=(1.0,), processes=2, overwrite=True)
