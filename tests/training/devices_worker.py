"""A training in two processes, as a script that Lightning or torchrun starts: devices_worker.py FOLDER [MODE]."""

import os
import signal
import sys
import time
from pathlib import Path

import torch
from torch import nn
from training_toys import CLASSES, IGNORED, SCALES, ToyData, ToyLocations, as_input, toy_config

from foveate.paper import SoftExpectation
from foveate.segmenter import FoveatedSegmenter
from foveate.training.fit import fit
from foveate.training.processes import Processes
from foveate.training.task import SegmentationTask


class UnevenLocations(ToyLocations):
    """Every second item, which are those of the second of two processes, has labels on a quarter of its pixels.

    Less one, so that they are odd in number: half of them is no whole number.
    """

    def __getitem__(self, index):
        batch = super().__getitem__(index)
        if index % 2:
            batch.label[:, :, 2:] = IGNORED
            batch.label[0, 1, 0] = IGNORED
        return batch


class Killed(UnevenLocations):
    """The second process is killed where it reads for the fifth step."""

    def __getitem__(self, index):
        if self.offset == 0 and index == 9:
            os.kill(os.getpid(), signal.SIGKILL)
        return super().__getitem__(index)


class Waiting(UnevenLocations):
    """Each process leaves its number, and waits where it reads for the third step."""

    def __getitem__(self, index):
        if self.offset == 0 and index >= 4:
            Path(sys.argv[1], f"{index % 2}.pid").write_text(str(os.getpid()))
            time.sleep(600)
        return super().__getitem__(index)


class NotANumber(UnevenLocations):
    """The second process's loss becomes no number in the third step."""

    def __getitem__(self, index):
        batch = super().__getitem__(index)
        return batch._replace(patches=batch.patches * torch.nan) if self.offset == 0 and index == 5 else batch


class Unreadable(UnevenLocations):
    """The first process fails to read for the third step."""

    def __getitem__(self, index):
        if self.offset == 0 and index == 4:
            raise OSError("this image cannot be read")
        return super().__getitem__(index)


def devices_task(**changes):
    """A network whose training has nothing random, and where every part of the result depends on the whole batch.

    Its convolution has no bias: normalisation takes its gradient away but for rounding.
    """
    torch.manual_seed(0)
    conv = nn.Conv2d(3, 6, 3, padding=1, bias=False)
    conv.unused = nn.Conv2d(6, 6, 1)  # as some encoders have
    network = nn.Sequential(conv, nn.BatchNorm2d(6), nn.ReLU(), nn.Conv2d(6, 2, 1))
    # The rule is linear in the gradient: Adam's would make rounding as large as a gradient near zero.
    sgd = {"optimizer": "sgd", "learning_rate": 0.05, "gradient_clip": 0.3}
    config = toy_config(**sgd, class_weights=[1, 2], checkpoint_every=1, **changes)
    segmenter = FoveatedSegmenter(network, SCALES, estimator=SoftExpectation())
    return SegmentationTask(segmenter, config, class_names=CLASSES, normalise=as_input)


def train(folder, processes, *, items=UnevenLocations, resume=False, **changes):
    task = devices_task(**changes)
    result = fit(
        task, ToyData(task.config.steps, items=items), folder, processes=processes, resume=resume, progress=False
    )
    return task, result


if __name__ == "__main__":
    run, mode = Path(sys.argv[1]), sys.argv[2] if len(sys.argv) > 2 else ""
    data = {"kill": Killed, "nan": NotANumber, "unreadable": Unreadable, "wait": Waiting}.get(mode, UnevenLocations)
    trained, _ = train(run, Processes.of(2, 1, "cpu"), items=data, resume=mode == "resume")
    torch.save(trained.state_dict(), run / f"rank-{trained.global_rank}.pt")
