import shutil

import pytest
import torch
from typer.testing import CliRunner

from foveate.cli.app import app
from foveate.errors import CheckpointError
from foveate.evaluation.evaluate import Evaluation
from foveate.runs.evaluate import evaluate_run, evaluate_split
from foveate.runs.folder import load_run
from foveate.runs.tune import tune
from toys import make_data_set, toy_config, write_config


def foveate(*arguments):
    return CliRunner().invoke(app, [str(a) for a in arguments], catch_exceptions=False)


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    root = tmp_path_factory.mktemp("ensemble")
    make_data_set(root / "toy")
    config = write_config(root / "toy.yaml", toy_config(root, steps=2, validate_every=2))
    assert foveate("train", config, "--estimator", "ensemble", "--out", root / "run").exit_code == 0
    return root


def test_training_an_ensemble_trains_its_members_and_joins_them(trained):
    run = load_run(trained / "run")
    members = [load_run(trained / "run/members" / f"fixed_{k}") for k in (1, 2)]
    assert [member.config.foveation.estimator.index for member in members] == [0, 1]
    image = torch.rand(1, 3, 64, 64)
    with torch.no_grad():
        joined = run.segmenter(image).softmax(1)
        alone = [member.segmenter(image).softmax(1) for member in members]
    torch.testing.assert_close(joined, torch.stack(alone).mean(0))
    assert (trained / "run/trained.json").exists()


def test_an_ensemble_is_evaluated_and_costs_the_passes_of_all_members(trained):
    evaluations: list[Evaluation] = [
        evaluate_split(load_run(trained / folder), "test") for folder in ("run", "run/members/fixed_1")
    ]
    assert evaluations[0].cost["passes"] == 2 * evaluations[1].cost["passes"]
    assert evaluations[0].scores.miou > 0


def test_a_missing_member_is_named_and_resuming_trains_only_that(trained, tmp_path):
    (trained / "run/members/fixed_2").rename(tmp_path / "away")
    with pytest.raises(CheckpointError, match=r"lacks its member .*fixed_2; train what is missing with `foveate train"):
        load_run(trained / "run")
    before = (trained / "run/members/fixed_1/checkpoints/last.ckpt").stat().st_mtime_ns
    result = foveate("train", trained / "run/config.yaml", "--out", trained / "run", "--resume")
    assert result.exit_code == 0
    assert (trained / "run/members/fixed_1/checkpoints/last.ckpt").stat().st_mtime_ns == before
    load_run(trained / "run")


def test_members_may_be_other_runs_of_the_right_kind(trained):
    config, out = trained / "toy.yaml", trained / "joined"
    members = ["../run/members/fixed_1", "../run/members/fixed_2"]
    change = f"members=[{', '.join(members)}]"
    assert foveate("train", config, change, "--estimator", "ensemble", "--out", out).exit_code == 0
    assert not (out / "members").exists()
    load_run(out)
    swapped = f"members=[{', '.join(reversed(members))}]"
    with pytest.raises(CheckpointError, match=r"cannot be member 1: fixed scale: 1, needed 0"):
        load_run(out, overrides=[swapped])


def test_members_may_have_learned_from_their_own_windows(trained):
    """What a comparison trains, where its estimator says so."""
    config = trained / "toy.yaml"
    for k in (1, 2):
        estimator = "foveation.estimator={name: fixed, own_window: 1.0}"
        out = trained / f"own_{k}"
        assert foveate("train", config, estimator, "--estimator", f"fixed_{k}", "--out", out).exit_code == 0
    members = "members=[../own_1, ../own_2]"
    assert foveate("train", config, members, "--estimator", "ensemble", "--out", trained / "of_own").exit_code == 0
    load_run(trained / "of_own")


def test_an_ensemble_spends_a_budget_among_its_members(trained, tmp_path):
    run = shutil.copytree(trained / "run", tmp_path / "run")
    trials = tune(run, split="test", budgets=[0.5, 1.0])
    assert {len(trial.looks) == 1 for trial in trials} == {True, False}
    target = load_run(run).segmenter.scales.target
    every = evaluate_run(run, "test", overrides=["inference.planner=per_target", "inference.overlap=0"])
    some = evaluate_run(run, "test", overrides=[f"inference.budget={1e6 / target**2}"])
    assert some.cost["passes"] <= 0.6 * every.cost["passes"]
