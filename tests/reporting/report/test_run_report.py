"""The page of a run: complete, self-contained, and honest about what is not there."""

import json
import os
import shutil

import numpy as np
import pytest
from PIL import Image
from report_toys import HOSTILE, Page, train_toy
from typer.testing import CliRunner

from foveate.cli.app import app
from foveate.errors import ConfigError, OutputExistsError
from foveate.reporting.report import ReportOptions, write_report
from foveate.reporting.report.state import RunState, find_evaluation, training_cost

pytestmark = pytest.mark.usefixtures("one_thread")
CLASSES = [{"name": HOSTILE, "color": "#202020"}, {"name": "disc", "color": "#e0c040"}]
SECTIONS = {"training", "accuracy", "images", "foveation", "cost", "setup"}
REPLACE = ReportOptions(overwrite=True)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return train_toy(tmp_path_factory.mktemp("reported"), classes=CLASSES)


@pytest.fixture(scope="module")
def report(run):
    shares = []
    report = write_report(run, on_progress=shares.append)
    assert sum(shares) == pytest.approx(1)
    return report


@pytest.fixture(scope="module")
def text(report):
    return report.path.read_text(encoding="utf-8")


def copy_of(run, target, *left_out):
    """The run without some of its files, of the same ages."""
    shutil.copytree(run, target)
    for name in left_out:
        path = target / name
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    return target


def test_the_cost_of_a_training_is_told_where_it_is_known(run, tmp_path):
    cost = RunState.of(run).training_cost
    assert cost["seconds"] > 0 and cost["peak_memory_mb"] > 0
    assert RunState.of(copy_of(run, tmp_path / "going on", "trained.json")).training_cost == {}
    old = copy_of(run, tmp_path / "old")
    (old / "trained.json").write_text('{"foveate": "0.1.0"}')
    assert RunState.of(old).training_cost == {}
    assert [label for label, _ in training_cost(RunState.of(old))["Training"]] == [
        "steps",
        "passes through the network",
    ]


def test_every_section_is_there(text, report):
    page = Page(text)
    assert set(page.identities) >= SECTIONS
    assert report.missing == ()
    links = {address[1:] for address in page.addresses if address.startswith("#")}
    assert links >= SECTIONS
    assert links <= set(page.identities)
    for said in (
        "Loss",
        "Entropy of the policy",
        "Confusion matrix",
        "Best:",
        "Worst:",
        "Foveated",
        "passes per megapixel",
        "seconds since the last start",
    ):
        assert said in page.said
    assert "overview_downsample: 8" in page.said


def test_no_identity_is_there_twice(text):
    identities = Page(text).identities
    assert len(identities) == len(set(identities))


def test_nothing_comes_from_elsewhere(text):
    page = Page(text)
    assert all(address.startswith(("data:", "#")) for address in page.addresses)
    assert not {"script", "link", "iframe", "object", "embed", "base"} & set(page.elements)
    style = text[text.index("<style>") : text.index("</style>")]
    assert "url(" not in style
    assert "@import" not in style
    assert "http" not in text.replace('http-equiv="Content-Security-Policy"', "")


def test_hostile_names_are_text(text):
    assert "alert(" in text
    assert "<script" not in text
    assert HOSTILE in Page(text).said


def test_figures_are_files_that_show_something(report, run):
    folder = run / "report" / "figures"
    assert set(report.figures) == set(folder.iterdir())
    charts = {path.stem for path in folder.glob("*.svg")}
    assert charts >= {"loss", "miou", "shares", "entropy", "learning-rates", "confusion", "iou-by-view"}
    assert {path.stem for path in folder.glob("*.png")} >= charts
    for path in folder.glob("*.png"):
        with Image.open(path) as picture:
            if "foveation" not in path.stem and "chosen" not in path.stem:  # which may be of one colour
                assert np.asarray(picture.convert("RGB")).std() > 2, path


def test_scores_are_those_of_the_evaluation(text, run):
    tree = json.loads((run / "report/evaluation/val.json").read_text())
    said = Page(text).said
    assert f"{100 * tree['miou']:.1f}" in said
    for image in tree["images"]:
        assert image["name"] in said


def test_an_evaluation_of_the_present_weights_is_used_again(run, report):
    before = (run / "report/evaluation/val.json").stat().st_mtime_ns
    write_report(run, options=REPLACE)
    assert (run / "report/evaluation/val.json").stat().st_mtime_ns == before


def test_an_older_evaluation_is_made_anew_or_said_to_be_old(run, report, tmp_path):
    copy = copy_of(run, tmp_path / "copy", "report/index.html")
    weights = (copy / "checkpoints/best.ckpt").stat()
    os.utime(copy / "report/evaluation/val.json", (weights.st_atime - 9, weights.st_mtime - 9))
    old = write_report(str(copy), str(copy / "report" / "index.html"), options=ReportOptions(evaluate=False))
    assert any("older than the weights" in reason for reason in old.missing)
    said = []
    assert write_report(copy, options=REPLACE, say=said.append).missing == ()
    assert len(said) == 1


def test_an_existing_page_is_kept(run, report):
    with pytest.raises(OutputExistsError, match="--overwrite"):
        write_report(run)


def test_a_stopped_run_is_reported_as_far_as_it_came(run, tmp_path):
    copy = copy_of(run, tmp_path / "killed", "report", "trained.json", "checkpoints")
    lines = (copy / "metrics.csv").read_text().splitlines(keepends=True)
    (copy / "metrics.csv").write_text("".join(lines[:3]) + lines[3][:7])
    report = write_report(copy)
    page = Page(report.path.read_text(encoding="utf-8"))
    assert "Not finished: 2 of 4 steps are logged" in page.said
    assert any("needs a checkpoint" in reason for reason in report.missing)
    assert all(reason in page.said for reason in report.missing)
    assert {"training", "setup"} <= set(page.identities)
    assert "accuracy" not in page.identities


def test_a_run_that_has_just_begun_has_a_report(run, tmp_path):
    (tmp_path / "new").mkdir()
    shutil.copy(run / "config.yaml", tmp_path / "new")
    report = write_report(tmp_path / "new")
    said = Page(report.path.read_text(encoding="utf-8")).said
    assert "None of its 4 steps is logged yet." in said
    assert len(report.missing) == 3


def test_moved_data_and_damaged_files_leave_the_rest(run, report, tmp_path):
    copy = copy_of(run, tmp_path / "moved", "report/index.html")
    config = (copy / "config.yaml").read_text()
    (copy / "config.yaml").write_text(config.replace(str(run.parent), str(tmp_path / "nowhere")))
    (copy / "foveation/step-00000002.npz").write_bytes(b"PK\x03\x04 cut off")
    shutil.copytree(copy / "report/evaluation", copy / "evaluation")
    moved = write_report(copy)
    page = Page(moved.path.read_text(encoding="utf-8"))
    assert any("is not where the configuration says" in reason for reason in moved.missing)
    assert any("step-00000002.npz is damaged" in reason for reason in moved.missing)
    assert {"training", "accuracy", "setup"} <= set(page.identities)
    assert "images" not in page.identities


def test_a_folder_that_is_no_run_is_refused(tmp_path):
    with pytest.raises(ConfigError, match="no configuration file"):
        write_report(tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_a_split_that_is_none_is_refused(run, tmp_path):
    with pytest.raises(ConfigError, match="allowed are train, val, test"):
        write_report(run, tmp_path / "new.html", ReportOptions(split="all"))


def test_a_method_without_a_policy_has_no_foveation(tmp_path):
    run = train_toy(tmp_path, estimator={"name": "fixed", "index": 0}, split={"val": ["b"]}, steps=2)
    report = write_report(run)
    page = Page(report.path.read_text(encoding="utf-8"))
    assert not (run / "foveation").exists()
    assert report.missing == ()
    assert "Only image: b" in page.said
    assert "Scores by chosen field of view" not in page.said


def test_the_command_writes_the_page(run, report, tmp_path):
    out = tmp_path / "out.html"
    result = CliRunner().invoke(app, ["report", str(run), "--out", str(out), "--device", "cpu"], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    assert "written to" in result.output
    assert set(Page(out.read_text(encoding="utf-8")).identities) >= SECTIONS
    assert "Examples:" in CliRunner().invoke(app, ["report", "--help"]).output


def test_with_other_settings_the_split_is_evaluated_anew_and_not_taken_for_the_run_s_own(run, report, tmp_path):
    copy, said = copy_of(run, tmp_path / "changed"), []
    page = write_report(
        copy, tmp_path / "changed.html", ReportOptions(overrides=("inference.overlap=0.4",)), say=said.append
    )
    assert said == ["no evaluation of these settings exists; evaluating val for the report"]
    assert page.missing == ()
    assert "overlap: 0.4" in page.path.read_text(encoding="utf-8")
    made = {path.name for path in (copy / "report" / "evaluation").glob("*.json")}
    assert made == {"val.json", "val-changed.json"}
    assert find_evaluation(RunState.of(copy), "val", copy / "report").file.name == "val.json"


def test_a_notebook_shows_the_page(report):
    shown = report._repr_html_()
    assert shown.startswith("<iframe srcdoc=")
    assert "<script" not in shown


def test_what_was_evaluated_is_not_evaluated_again(run, tmp_path):
    copy, said = copy_of(run, tmp_path / "evaluated", "report"), []
    result = CliRunner().invoke(app, ["evaluate", str(copy), "--device", "cpu"], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    assert write_report(copy, say=said.append).missing == ()
    assert said == []
    assert not (copy / "report" / "evaluation").exists()


def test_pictures_enlarge_and_the_animation_stops_without_scripts(text):
    page = Page(text)
    assert text.count('class="zoom"') == page.elements.count("img") - 1  # all but the animation
    assert "Pause" in page.said


def test_the_picture_of_the_passes_is_as_large_as_the_image(run, report):
    folder = run / "report" / "figures"
    for one, other in (("rendering-plain", "rendering-chosen"), ("best-image", "best-passes")):
        with Image.open(folder / f"{one}.png") as picture, Image.open(folder / f"{other}.png") as passes:
            assert picture.size == passes.size
