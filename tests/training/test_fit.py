import math
import os
import re
import resource
import signal
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from torch.utils.data import DataLoader
from training_toys import ON_CPU, ToyData, ToyLocations, assert_same_weights, toy_config, toy_task, weights_of

from foveate.build import load_checkpoint, load_segmenter_state
from foveate.errors import (
    CheckpointError,
    NonFiniteLossError,
    OutputExistsError,
    OutputWriteError,
    StoppedError,
    WorkerError,
)
from foveate.foveation.estimators import FixedScale
from foveate.geometry import Window
from foveate.paper import SoftExpectation, StraightThroughArgmax
from foveate.training.callbacks import StepLines
from foveate.training.config import TrainingConfig
from foveate.training.fit import fit
from foveate.training.history import read_history
from foveate.training.task import SegmentationTask


def train(task, folder, **options):
    data = ToyData(task.config.steps, scales=len(task.segmenter.estimator.reads(2).scales))
    return fit(task, options.pop("data", data), folder, processes=ON_CPU, progress=False, **options)


def test_loss_falls(tmp_path):
    result = train(toy_task(toy_config(steps=40, validate_every=20)), tmp_path)
    losses = [row["train/loss"] for row in read_history(tmp_path / "metrics.csv")]
    assert sum(losses[-5:]) < 0.5 * sum(losses[:5])
    assert result.best_miou > 0.9


def test_what_a_run_leaves_behind(tmp_path):
    result = train(toy_task(toy_config(steps=5)), tmp_path)
    assert result.best_path == tmp_path / "checkpoints/best.ckpt"
    assert result.last_path == tmp_path / "checkpoints/last.ckpt"
    assert sorted(path.name for path in (tmp_path / "checkpoints").iterdir()) == ["best.ckpt", "last.ckpt"]
    assert result.steps == 5
    assert result.seconds > 0
    rows = read_history(tmp_path / "metrics.csv")
    assert [row["step"] for row in rows] == [1, 2, 3, 4, 5]
    # Steps 2 and 4 by the interval, step 5 as it is the last.
    assert [row["step"] for row in rows if "val/miou" in row] == [2, 4, 5]
    assert max(row.get("val/miou", 0) for row in rows) == pytest.approx(result.best_miou)
    assert rows[0].keys() >= {"train/loss", "train/cross_entropy", "train/share/8", "train/share/16", "lr/policy"}
    assert rows[1].keys() >= {"val/loss", "val/iou/dark", "val/share/16", "val/policy_entropy"}
    assert rows[0]["train/share/8"] + rows[0]["train/share/16"] == pytest.approx(1)
    assert load_checkpoint(result.last_path)["global_step"] == 5


def test_checkpoint_gives_the_segmenter_back(tmp_path):
    task = toy_task()
    result = train(task, tmp_path)
    state = load_segmenter_state(result.last_path)
    assert_same_weights(state.weights, dict(task.segmenter.state_dict()))
    assert state.config == {"training": task.config.tree()}


def stopped_at(step):
    """Data that fail when the batch after this step is asked for, as a killed run would end there."""

    class Stopping(ToyLocations):
        def __getitem__(self, index):
            if self.offset == 0 and index >= 2 * step:
                raise RuntimeError("killed")
            return super().__getitem__(index)

    return Stopping


@pytest.mark.parametrize(
    ("stop", "changes", "resumed_after"),
    [
        (3, {"validate_every": 3}, 3),  # after a validation
        (5, {"validate_every": 6, "checkpoint_every": 2}, 4),  # between validations
        (5, {"validate_every": 2, "checkpoint_every": 3}, 3),  # after a checkpoint that no validation followed
        (5, {"validate_every": 4, "checkpoint_every": 2}, 4),
        (1, {"validate_every": 2}, 0),  # before any checkpoint
    ],
)
def test_resume_is_exact(tmp_path, stop, changes, resumed_after):
    config = toy_config(**changes, schedule="cosine", warmup_steps=2)
    whole = toy_task(config)
    expected = train(whole, tmp_path / "whole")
    with pytest.raises(RuntimeError, match="killed"):
        train(toy_task(config), tmp_path / "parts", data=ToyData(6, items=stopped_at(stop)))
    last = tmp_path / "parts/checkpoints/last.ckpt"
    assert (load_checkpoint(last)["global_step"] if last.exists() else 0) == resumed_after
    resumed = toy_task(config, seed=0 if resumed_after == 0 else 1)  # a checkpoint replaces the weights at the start
    result = train(resumed, tmp_path / "parts", resume=True)
    assert_same_weights(weights_of(resumed), weights_of(whole))
    assert read_history(tmp_path / "parts/metrics.csv") == read_history(tmp_path / "whole/metrics.csv")
    assert result.best_miou == expected.best_miou
    assert result.steps == 6


@pytest.mark.parametrize("stop", range(1, 6))
@pytest.mark.parametrize(
    "changes",
    [{"validate_every": 3}, {"validate_every": 6, "checkpoint_every": 4}, {"validate_every": 2}],
)
def test_what_is_asked_to_stop_at_any_step_resumes_exactly(tmp_path, stop, changes):
    config = toy_config(**changes, schedule="cosine", warmup_steps=2)
    whole, stopped, resumed = toy_task(config), toy_task(config), toy_task(config)
    train(whole, tmp_path / "whole")
    with pytest.raises(StoppedError, match=f"stopped after step {stop} of 6"):
        train(stopped, tmp_path / "parts", should_stop=lambda: stopped.trainer.global_step >= stop)
    last = tmp_path / "parts/checkpoints/last.ckpt"
    in_validation = stop % config.validate_every == 0  # which is made again
    found = load_checkpoint(last)["global_step"] if last.exists() else 0
    assert found < stop if in_validation else found == stop
    assert train(resumed, tmp_path / "parts", resume=True).steps == 6
    assert_same_weights(weights_of(resumed), weights_of(whole))
    assert read_history(tmp_path / "parts/metrics.csv") == read_history(tmp_path / "whole/metrics.csv")


def test_an_interrupt_is_an_interrupt(tmp_path):
    def interrupt():
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(toy_task(), tmp_path, should_stop=interrupt)


def test_the_handlers_of_the_program_stay(tmp_path):
    seen, ours = [], lambda number, frame: seen.append(number)
    before = signal.signal(signal.SIGTERM, ours)
    try:
        train(toy_task(), tmp_path, should_stop=lambda: os.kill(os.getpid(), signal.SIGTERM) or False)
        assert signal.getsignal(signal.SIGTERM) is ours
    finally:
        signal.signal(signal.SIGTERM, before)
    assert set(seen) == {signal.SIGTERM}


class KilledInValidation(ToyLocations):
    """Data that end the run in its second validation."""

    read = 0

    def __getitem__(self, index):
        if self.offset == 1:
            type(self).read += 1
            if self.read == 5:
                raise RuntimeError("killed")
        return super().__getitem__(index)


def test_an_interrupted_validation_is_not_skipped(tmp_path):
    config = toy_config(validate_every=3, checkpoint_every=1)
    whole = toy_task(config)
    train(whole, tmp_path / "whole")
    with pytest.raises(RuntimeError, match="killed"):
        train(toy_task(config), tmp_path / "parts", data=ToyData(6, items=KilledInValidation))
    assert load_checkpoint(tmp_path / "parts/checkpoints/last.ckpt")["global_step"] == 5
    resumed = toy_task(config, seed=1)
    train(resumed, tmp_path / "parts", resume=True)
    assert_same_weights(weights_of(resumed), weights_of(whole))
    assert read_history(tmp_path / "parts/metrics.csv") == read_history(tmp_path / "whole/metrics.csv")


KILLED_RUN = """
import os, signal, sys
from pathlib import Path
import torch
torch.set_num_threads(1)  # as here: another number adds in another order
sys.path.insert(0, sys.argv[2])
from torch.utils.data import DataLoader
from training_toys import ON_CPU, ToyData, ToyLocations, toy_config, toy_task
from foveate.geometry import Window
from foveate.training.fit import fit

class Killed(ToyLocations):
    def __getitem__(self, index):
        if self.offset == 0 and index >= 10:
            os.kill(os.getpid(), signal.SIGKILL)
        return super().__getitem__(index)

task = toy_task(toy_config(checkpoint_every=3))
fit(task, ToyData(6, items=Killed), Path(sys.argv[1]), processes=ON_CPU, progress=False)
"""


@pytest.mark.slow  # for the second interpreter
def test_resume_after_a_killed_process(tmp_path):
    command = [sys.executable, "-c", KILLED_RUN, str(tmp_path / "parts"), str(Path(__file__).parent)]
    assert subprocess.run(command, check=False).returncode == -signal.SIGKILL
    config = toy_config(checkpoint_every=3)
    resumed, whole = toy_task(config, seed=1), toy_task(config)
    train(whole, tmp_path / "whole")
    train(resumed, tmp_path / "parts", resume=True)
    assert_same_weights(weights_of(resumed), weights_of(whole))
    assert read_history(tmp_path / "parts/metrics.csv") == read_history(tmp_path / "whole/metrics.csv")


def test_resuming_a_finished_run_changes_nothing(tmp_path):
    done = train(toy_task(), tmp_path)
    history = (tmp_path / "metrics.csv").read_text()
    task = toy_task(seed=3)
    again = train(task, tmp_path, resume=True)
    assert again[:4] == done[:4]
    assert (tmp_path / "metrics.csv").read_text() == history


def test_resume_may_train_longer(tmp_path):
    train(toy_task(toy_config(schedule="constant")), tmp_path / "parts")
    longer = toy_task(toy_config(schedule="constant", steps=9))
    result = train(longer, tmp_path / "parts", resume=True)
    whole = toy_task(toy_config(schedule="constant", steps=9))
    train(whole, tmp_path / "whole")
    assert result.steps == 9
    rows = read_history(tmp_path / "parts/metrics.csv")
    assert [row["step"] for row in rows] == list(range(1, 10))


def test_resume_survives_moving_the_run(tmp_path):
    before = train(toy_task(), tmp_path / "here")
    (tmp_path / "here").rename(tmp_path / "there")
    after = train(toy_task(), tmp_path / "there", resume=True)
    assert after.best_miou == before.best_miou


def test_resume_without_a_checkpoint_says_so(tmp_path, caplog):
    train(toy_task(toy_config(steps=1)), tmp_path, resume=True)
    assert "starting from the beginning" in caplog.text


def test_refuses_to_overwrite(tmp_path):
    train(toy_task(toy_config(steps=1)), tmp_path)
    with pytest.raises(OutputExistsError, match=r"best.ckpt and last.ckpt.*--resume.*--out"):
        train(toy_task(toy_config(steps=1)), tmp_path)


def test_checkpoint_of_another_config(tmp_path):
    tree = {"network": {"architecture": "fpn"}, "foveation": {"patch_size": 8}}
    train(toy_task(config_tree=tree), tmp_path)
    other = toy_task(config_tree=tree | {"network": {"architecture": "unet"}})
    with pytest.raises(CheckpointError, match=r"network\.architecture was 'fpn', is now 'unet'"):
        train(other, tmp_path, resume=True)


def test_another_learning_rate_is_not_silently_ignored(tmp_path):
    train(toy_task(toy_config(steps=2)), tmp_path)
    with pytest.raises(CheckpointError, match=r"training\.learning_rate was 0\.01, is now 0\.1"):
        train(toy_task(toy_config(steps=4, learning_rate=0.1)), tmp_path, resume=True)


class NotANumber(ToyLocations):
    def __getitem__(self, index):
        batch = super().__getitem__(index)
        return batch._replace(patches=batch.patches * math.nan) if self.offset == 0 and index >= 4 else batch


def test_non_finite_loss_stops_before_the_step(tmp_path):
    task = toy_task(toy_config(steps=6, validate_every=2))
    with pytest.raises(NonFiniteLossError, match=r"nan in step 3 .*network 0\.00.*learning_rate"):
        train(task, tmp_path, data=ToyData(6, items=NotANumber))
    saved = load_segmenter_state(tmp_path / "checkpoints/last.ckpt").weights
    assert load_checkpoint(tmp_path / "checkpoints/last.ckpt")["global_step"] == 2
    for key, value in task.segmenter.named_parameters():
        assert torch.equal(value, saved[key]), key


class OnePlaceIsWrong(ToyLocations):
    def __getitem__(self, index):
        batch = super().__getitem__(index)
        patches, count = batch.patches.clone().float(), len(batch.patches)
        if self.offset == 0 and index >= 4:
            patches[-1] = math.inf
        place = torch.tensor([[number, 10 * number, 20, 30, 40] for number in range(count)])
        return batch._replace(patches=patches, place=place)


def test_a_non_finite_loss_names_the_file_and_the_window(tmp_path):
    data = ToyData(6, items=OnePlaceIsWrong)
    count = len(OnePlaceIsWrong(1)[0].patches)
    data.samples = lambda split: [SimpleNamespace(image=f"{split}/{number}.tif") for number in range(count)]
    last = Window(10 * (count - 1), 20, 30, 40)
    with pytest.raises(NonFiniteLossError, match=re.escape(f"in step 3, of train/{count - 1}.tif at {last}")):
        train(toy_task(toy_config(steps=6, validate_every=2)), tmp_path, data=data)


def test_non_finite_weights_do_not_replace_a_checkpoint(tmp_path):
    task = toy_task(toy_config(steps=4, gradient_clip=None))
    calls = []

    def break_gradient(parameter):
        calls.append(parameter)
        if len(calls) == 4:
            parameter.grad.fill_(math.inf)

    task.segmenter.network[-1].bias.register_post_accumulate_grad_hook(break_gradient)
    with pytest.raises(NonFiniteLossError, match="after step 4 the weights are not finite"):
        train(task, tmp_path)
    assert load_checkpoint(tmp_path / "checkpoints/last.ckpt")["global_step"] == 2


def test_a_failed_write_leaves_the_previous_checkpoint(tmp_path, monkeypatch):
    saves = []
    save = torch.save

    def failing(state, path):
        saves.append(path)
        save(state, path)
        if len(saves) == 4:
            raise KeyError("killed while writing")

    monkeypatch.setattr(torch, "save", failing)
    with pytest.raises(KeyError):
        train(toy_task(), tmp_path)
    assert load_checkpoint(tmp_path / "checkpoints/last.ckpt")["global_step"] < 6
    assert sorted(path.name for path in (tmp_path / "checkpoints").iterdir()) == ["best.ckpt", "last.ckpt"]


@pytest.mark.parametrize(("optimizer", "schedule"), [("adamw", "poly"), ("sgd", "cosine"), ("adam", "constant")])
def test_every_optimizer_and_schedule_steps(tmp_path, optimizer, schedule):
    config = toy_config(steps=2, optimizer=optimizer, schedule=schedule, policy_learning_rate=0.02)
    task = toy_task(config)
    before = weights_of(task)
    train(task, tmp_path)
    after = weights_of(task)
    for part in ("network.0", "policy.layers.0"):
        assert not torch.equal(before[f"segmenter.{part}.weight"], after[f"segmenter.{part}.weight"])
    first = read_history(tmp_path / "metrics.csv")[0]
    assert (first["lr/network"], first["lr/policy"]) == (0.01, 0.02)


@pytest.mark.parametrize("loss", ["cross_entropy", "dice", "focal"])
def test_every_loss_trains(tmp_path, loss):
    config = toy_config(steps=25, validate_every=25, losses={"cross_entropy": 0} | {loss: 1})
    train(toy_task(config), tmp_path)
    values = [row[f"train/{loss}"] for row in read_history(tmp_path / "metrics.csv")]
    assert sum(values[-5:]) < sum(values[:5])


@pytest.mark.parametrize("estimator", [SoftExpectation(), StraightThroughArgmax(), FixedScale(index=1)])
def test_every_estimator_trains(tmp_path, estimator):
    train(toy_task(toy_config(steps=2), estimator=estimator), tmp_path)


def test_fixed_scale_leaves_the_policy_alone(tmp_path):
    task = toy_task(toy_config(steps=3, weight_decay=0.5), estimator=FixedScale(index=1))
    before = weights_of(task)
    train(task, tmp_path)
    policy = [key for key in before if key.startswith("segmenter.policy.")]
    assert policy
    assert all(torch.equal(before[key], task.state_dict()[key]) for key in policy)
    last = read_history(tmp_path / "metrics.csv")[-1]
    assert (last["train/share/8"], last["train/share/16"], last["val/share/16"]) == (0, 1, 1)
    assert not {"train/policy_entropy", "lr/policy"} & last.keys()


def test_mixed_bfloat16(tmp_path):
    result = train(toy_task(toy_config(precision="bf16", steps=30, validate_every=30)), tmp_path)
    losses = [row["train/loss"] for row in read_history(tmp_path / "metrics.csv")]
    assert losses[-1] < losses[0]
    assert result.best_miou > 0.9


def test_the_seed_decides_the_run(tmp_path):
    runs = [toy_task(toy_config(seed=seed)) for seed in (4, 4, 5)]
    for number, task in enumerate(runs):
        train(task, tmp_path / str(number))
    assert_same_weights(weights_of(runs[0]), weights_of(runs[1]))
    assert not torch.equal(*(task.segmenter.network[0].weight for task in runs[1:]))


def test_without_validation_data(tmp_path, caplog):
    caplog.set_level("INFO")
    result = train(toy_task(), tmp_path, data=ToyData(6, validation=False))
    assert result.best_path is None
    assert "no image is in the validation split" in caplog.text
    assert math.isnan(result.best_miou)
    assert load_checkpoint(result.last_path)["global_step"] == 6


@pytest.mark.parametrize("deterministic", [True, False])
def test_the_process_is_left_as_it_was(tmp_path, deterministic):
    seen = []
    task = toy_task(toy_config(steps=1, deterministic=deterministic))
    task.segmenter.network.register_forward_hook(lambda *_: seen.append(torch.are_deterministic_algorithms_enabled()))
    train(task, tmp_path)
    assert set(seen) == {deterministic}
    assert not torch.are_deterministic_algorithms_enabled()


def test_batches_without_a_label_do_no_harm(tmp_path):
    class Unlabelled(ToyLocations):
        def __getitem__(self, index):
            batch = super().__getitem__(index)
            return batch._replace(label=torch.full_like(batch.label, 255))

    losses = {"cross_entropy": 1, "dice": 1, "focal": 1}
    result = train(toy_task(toy_config(losses=losses)), tmp_path, data=ToyData(6, items=Unlabelled))
    assert math.isnan(result.best_miou)
    assert read_history(tmp_path / "metrics.csv")[-1]["train/loss"] == 0


def test_a_terminal_shows_a_bar_and_no_chatter(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("foveate.training.fit._shows_bar", lambda progress: progress)
    fit(toy_task(toy_config(logger="csv")), ToyData(6), tmp_path, processes=ON_CPU, progress=True)
    text = capsys.readouterr()
    assert "it/s" in text.out
    assert "loss" in text.out
    for word in ("GPU available", "Tip", "LOCAL_RANK", "Trainer.fit", "warning"):
        assert word not in text.out + text.err


@pytest.mark.filterwarnings("ignore")
def test_a_full_disk_is_named_with_what_to_do(tmp_path):
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    task = toy_task(toy_config(steps=4))
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (3000, limits[1]))
        with pytest.raises(OutputWriteError, match=r"could not write .*\.ckpt|training into .* stopped: .*--resume"):
            train(task, tmp_path)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert not list(tmp_path.rglob("*.ckpt*"))


class KilledWorker(ToyLocations):
    def __getitem__(self, index):
        if index >= 4 and self.offset == 0:
            os.kill(os.getpid(), signal.SIGKILL)
        return super().__getitem__(index)


class DataOfWorkers(ToyData):
    def train_dataloader(self):
        loader = super().train_dataloader()
        return DataLoader(
            loader.dataset, batch_sampler=loader.batch_sampler, collate_fn=loader.collate_fn, num_workers=1
        )


@pytest.mark.filterwarnings("ignore")
def test_a_killed_data_worker_is_named_with_what_to_do(tmp_path):
    data = DataOfWorkers(6, items=KilledWorker)
    with pytest.raises(WorkerError, match=r"a process that reads images ended: .*reduce data\.workers.*--resume"):
        train(toy_task(toy_config(steps=6)), tmp_path, data=data)


@pytest.mark.parametrize("error", [ConnectionResetError(104, "Connection reset by peer"), EOFError("nothing left")])
def test_a_data_worker_that_ends_while_it_hands_over_a_batch_is_named_too(tmp_path, error):
    class HandingOver(ToyLocations):
        def __getitem__(self, index):
            raise error

    with pytest.raises(WorkerError, match=r"a process that reads images ended: .*reduce data\.workers.*--resume"):
        train(toy_task(toy_config(steps=6)), tmp_path, data=ToyData(6, items=HandingOver))


class Unasked(SegmentationTask):
    """As on a GPU: no step looks at its loss before it learns."""

    waits = False

    def on_train_batch_end(self, *args):
        if self.global_step == 2:
            self.weights_before = {name: value.clone() for name, value in self.named_parameters()}


def test_without_asking_the_device_a_step_that_is_not_finite_is_skipped_and_told_at_a_logged_one(tmp_path, monkeypatch):
    monkeypatch.setattr(TrainingConfig, "log_interval", 6)
    task = toy_task(toy_config(steps=6, validate_every=6), kind=Unasked)
    with pytest.raises(NonFiniteLossError, match=r"not finite in step 3 .*learning_rate"):
        train(task, tmp_path, data=ToyData(6, items=NotANumber))
    assert not (tmp_path / "checkpoints/last.ckpt").exists()
    assert task.trainer.global_step == 5  # told when the sixth is logged
    for name, value in task.named_parameters():
        assert torch.equal(value, task.weights_before[name]), name


def test_without_asking_the_device_training_is_the_same(tmp_path):
    asked, unasked = toy_task(toy_config(steps=4)), toy_task(toy_config(steps=4), kind=Unasked)
    for name, task in (("asked", asked), ("unasked", unasked)):
        train(task, tmp_path / name)
    for (name, one), other in zip(asked.named_parameters(), unasked.parameters(), strict=True):
        assert torch.equal(one, other), name


def test_kernels_are_exact_on_the_processor_and_fast_on_a_gpu_unless_told():
    assert TrainingConfig().exact(on_gpu=False)
    assert not TrainingConfig().exact(on_gpu=True)
    assert all(TrainingConfig(deterministic=True).exact(on_gpu=gpu) for gpu in (True, False))


def test_without_a_terminal_the_steps_are_told_in_lines(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(StepLines, "SECONDS", 0)
    fit(toy_task(toy_config(steps=4, logger="csv")), ToyData(4), tmp_path, processes=ON_CPU, progress=True)
    said = [line for line in capsys.readouterr().err.splitlines() if line.startswith("training: step")]
    assert [line.split(",")[0] for line in said] == ["training: step 2 of 4", "training: step 3 of 4"]
    assert all(re.search(r"[\d.]+ steps/s, about 0:00:\d\d left$", line) for line in said)


def test_the_order_in_memory_changes_where_it_changes_no_digit():
    """A CPU computes kernels of 1 x 1 to other digits where they say that channels come last."""
    wide, _, _, _, narrow = toy_task().segmenter.network
    assert wide.weight.is_contiguous(memory_format=torch.channels_last)
    assert narrow.weight.stride() == (6, 1, 1, 1)
