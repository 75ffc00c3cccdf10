import numpy as np
import pytest
import torch

from foveate.data.readers import open_image
from foveate.errors import ImageReadError
from foveate.geometry import CellGrid, Size, Window
from foveate.inference.field import FoveationField
from foveate.inference.source import PixelSource
from foveate.runs.config import RunConfig
from foveate.runs.folder import RunFolder
from foveate.runs.train import prepare_training
from foveate.training import history, recording
from foveate.training.history import FoveationMap, kept_steps, read_history, read_maps, thin_out
from foveate.training.recording import MetricsFile
from toys import make_data_set, toy_config


def test_one_row_a_step_whatever_comes_when(tmp_path):
    path = tmp_path / "run/metrics.csv"
    file = MetricsFile(path)
    file.log_metrics({"loss": 0.5}, 1)
    file.log_metrics({"loss": 0.25}, 2)
    file.log_metrics({"val": 0.75, "acc": 1.0}, 2)
    file.log_metrics({"loss": 0.125}, 3)
    assert path.read_text() == "step,loss,acc,val\n1,0.5,,\n2,0.25,1,0.75\n3,0.125,,\n"
    assert read_history(path)[1] == {"step": 2, "loss": 0.25, "acc": 1, "val": 0.75}


def test_rows_are_on_disk_at_once(tmp_path):
    file = MetricsFile(tmp_path / "metrics.csv")
    for step in range(1, 4):
        file.log_metrics({"loss": 1.0}, step)
        assert len(read_history(tmp_path / "metrics.csv")) == step


def test_resuming_keeps_what_was_before_and_drops_what_was_after(tmp_path):
    path = tmp_path / "metrics.csv"
    first = MetricsFile(path)
    for step in (2, 4, 6):
        first.log_metrics({"loss": float(step)}, step)
    second = MetricsFile(path, after_step=4)
    second.log_metrics({"val": 0.5}, 4)
    second.log_metrics({"loss": 7.0}, 6)
    assert read_history(path) == [
        {"step": 2, "loss": 2},
        {"step": 4, "loss": 4, "val": 0.5},
        {"step": 6, "loss": 7},
    ]


def test_a_row_cut_off_by_a_kill_is_dropped(tmp_path):
    path = tmp_path / "metrics.csv"
    path.write_text("step,loss,val\n1,0.5,0.1\n2,0.")
    MetricsFile(path, after_step=5).log_metrics({"loss": 0.25}, 3)
    assert path.read_text() == "step,loss,val\n1,0.5,0.1\n3,0.25,\n"


def test_a_new_run_starts_afresh_but_not_before_it_logs(tmp_path):
    path = tmp_path / "metrics.csv"
    path.write_text("step,loss\n1,0.5\n")
    file = MetricsFile(path)
    assert path.read_text() == "step,loss\n1,0.5\n"
    file.log_metrics({"loss": 1.0}, 1)
    assert path.read_text() == "step,loss\n1,1\n"


def train(root, run="run", *, resume=False, estimator="gumbel", **training):
    tree = toy_config(root, **{"steps": 6, "validate_every": 2, **training})
    tree["foveation"]["estimator"] = {"name": estimator}
    tree["data"]["split"] = {"train": ["a"], "val": ["b", "c", "d"]}
    prepared = prepare_training(RunConfig.parse(tree), RunFolder(root / run), resume=resume)
    prepared.fit(progress=False)
    return root / run / "foveation"


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    root = tmp_path_factory.mktemp("foveation")
    make_data_set(root / "toy")
    return root


@pytest.fixture(scope="module")
def kept(root):
    return kept_steps(train(root))


def test_there_is_a_map_before_training_and_after_each_validation(kept):
    assert [step for step, _ in kept] == [0, 2, 4, 6]
    for step, path in kept:
        maps = read_maps(path)
        assert [one.name for one in maps] == ["b", "c"]
        for one in maps:
            assert one.step == step
            assert one.window == Window(0, 0, 152, 176), "19 x 22 cells of 8 pixels"
            assert one.probabilities.shape == (2, 19, 22)
            assert np.allclose(one.probabilities.sum(axis=0), 1, atol=2e-3)


def test_the_last_map_is_what_the_trained_policy_chooses(root, kept):
    run = RunFolder(root / "run").load("last", torch.device("cpu"))
    with open_image(root / "toy/images/b.png") as image:
        field = FoveationField(run.segmenter, PixelSource.of(image, run.config.data, run.device))
        rows, cols = np.divmod(np.arange(19 * 22), 22)
        logits = field.logits_at(torch.from_numpy(rows * 8), torch.from_numpy(cols * 8))
    expected = logits.softmax(dim=1).T.reshape(2, 19, 22).numpy()
    assert np.allclose(read_maps(kept[-1][1])[0].probabilities, expected, atol=1e-3)


def test_a_training_is_the_same_with_and_without(root, monkeypatch):
    train(root, "with")
    monkeypatch.setattr(recording.FoveationHistory, "_keep", lambda *_arguments: None)
    assert kept_steps(train(root, "without")) == []
    one, other = (torch.load(root / run / "checkpoints/last.ckpt", weights_only=True) for run in ("with", "without"))
    for name, value in one["state_dict"].items():
        assert torch.equal(value, other["state_dict"][name]), name


def test_a_resumed_training_has_the_maps_of_an_uninterrupted_one(root):
    same = {"schedule": "constant", "estimator": "mean"}  # whatever the number of steps
    train(root, "resumed", steps=4, **same)
    later = root / "resumed/foveation/step-00000099.npz"
    later.write_bytes((root / "resumed/foveation/step-00000004.npz").read_bytes())
    folder = train(root, "resumed", resume=True, **same)
    assert [step for step, _ in kept_steps(folder)] == [0, 2, 4, 6]
    whole = kept_steps(train(root, "whole", **same))
    for (_, path), (_, other) in zip(kept_steps(folder), whole, strict=True):
        for one, two in zip(read_maps(path), read_maps(other), strict=True):
            assert np.array_equal(one.probabilities, two.probabilities)


def test_an_estimator_without_a_policy_keeps_nothing(root):
    assert not train(root, "average", estimator="average", steps=2).exists()


@pytest.mark.parametrize("interval", [1, 10])
def test_few_maps_are_kept_about_evenly(tmp_path, interval):
    for i in range(100):
        (tmp_path / f"step-{i * interval:08d}.npz").touch()
        thin_out(tmp_path, 12)
        steps = [step for step, _ in kept_steps(tmp_path)]
        assert len(steps) == min(i + 1, 12)
        assert {0, i * interval} <= set(steps)
    gaps = np.diff(steps)
    assert gaps.max() <= 4 * gaps.min()


def test_a_large_map_is_averaged(root, kept, monkeypatch, tmp_path):
    monkeypatch.setattr(recording, "LONGEST_MAP", 10)
    maps = read_maps(kept_steps(train(root, "coarse", steps=2))[0][1])
    assert maps[0].probabilities.shape == (2, 7, 8), "means over 3 x 3 cells"
    fine = read_maps(kept[0][1])[0].probabilities[:, :3, :3].mean(axis=(1, 2))
    assert np.allclose(maps[0].probabilities[:, 0, 0], fine, atol=1e-3)


def test_of_a_huge_image_the_middle_is_looked_at():
    cells = recording._central(CellGrid(Size(16 * 1000, 16 * 100), 16))
    assert cells == Window(308, 0, 384, 100)


def test_a_damaged_file_is_named(tmp_path):
    (tmp_path / "step-00000001.npz").write_bytes(b"PK\x03\x04")
    with pytest.raises(ImageReadError, match=r"step-00000001\.npz is damaged"):
        read_maps(tmp_path / "step-00000001.npz")


def test_maps_are_read_as_they_were_written(tmp_path):
    probabilities = np.random.default_rng(0).random((3, 4, 5)).astype(np.float16).astype(np.float32)
    written = FoveationMap(7, "ä b", Window(-3, 4, 50, 60), probabilities)
    history.write_maps(tmp_path / "step-00000007.npz", [written])
    (read,) = read_maps(tmp_path / "step-00000007.npz")
    assert (read.step, read.name, read.window) == (7, "ä b", Window(-3, 4, 50, 60))
    assert np.array_equal(read.probabilities, probabilities)
