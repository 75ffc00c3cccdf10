"""Changed bytes of every kind end in one error that names the file, or change nothing that has a checksum."""

import sys
from pathlib import Path

import pytest

pytest.importorskip("zarr")
sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))
from fuzz import Bench, Trial, listening, one_trial, table
from fuzz_kinds import KINDS

TRIALS = 8


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.name)
@pytest.mark.filterwarnings("ignore")
def test_nothing_goes_wrong_without_a_word(kind, tmp_path):
    with listening():
        bench = Bench(kind, tmp_path)
        trials = [one_trial(bench, seed) for seed in range(10_000, 10_000 + TRIALS)]
    assert [trial for trial in trials if trial.outcome == "wrong"] == []
    assert {trial.outcome for trial in trials} <= {"clear", "harmless"}


def test_the_table_counts_each_outcome():
    trials = [Trial("PNG", seed, "flip", outcome, "") for seed, outcome in enumerate(["clear", "clear", "wrong"])]
    assert [line.split() for line in table(trials).splitlines()][1:] == [
        ["PNG", "3", "2", "0", "1"],
        ["all", "3", "2", "0", "1"],
    ]
