"""Two processes that normalise their halves of a batch; as a script, the second: sync_worker.py FOLDER."""

import copy
import sys
from pathlib import Path

import torch
import torch.distributed as dist
from timm.layers import BatchNormAct2d
from torch import nn

from foveate.networks.build import SingleValueBatchNorm2d
from foveate.training.processes import BatchNormSync

# Layers of every kind, and the shape of a batch for each.
CASES = {
    "plain": (nn.BatchNorm2d(3), (5, 3, 4, 6)),
    "one": (nn.BatchNorm1d(3), (5, 3)),
    "three": (nn.BatchNorm3d(3), (5, 3, 2, 3, 2)),
    "single": (SingleValueBatchNorm2d(3), (2, 3, 1, 1)),
    "activation": (BatchNormAct2d(3), (5, 3, 4, 6)),
    "cumulative": (nn.BatchNorm2d(3, momentum=None, affine=False), (5, 3, 4, 6)),
    "untracked": (nn.BatchNorm2d(3, track_running_stats=False), (5, 3, 4, 6)),
}


def batches(shape, steps=2):
    """Batches far from zero, where squares of means would lose the variance, and gradients for them."""
    generator = torch.Generator().manual_seed(0)
    return [
        [scale * torch.randn(shape, generator=generator) + offset for scale, offset in ((2.0, 50.0), (1.0, 0.0))]
        for _ in range(steps)
    ]


def normalised(layer, pairs, inference):
    """What a layer makes of batches: outputs, gradients of inputs and parameters, its state, its output in eval."""
    results = []
    for batch, gradient in pairs:
        given = batch.requires_grad_()
        output = layer(given)
        output.backward(gradient)
        results += [output.detach(), given.grad]
    return {
        "per_value": results,
        "parameters": [parameter.grad for parameter in layer.parameters()],
        "state": dict(layer.state_dict()),
        "inference": layer.eval()(inference).detach(),
    }


def normalise_half(folder, rank):
    """What the process of this rank makes of its part of each case's batches, beside the other process."""
    dist.init_process_group("gloo", init_method=f"file://{folder}/meeting", rank=rank, world_size=2)
    found = {}
    for name, (layer, shape) in CASES.items():
        synced, whole = BatchNormSync().apply(copy.deepcopy(layer)), batches(shape)
        # Not shared out evenly where the number is odd.
        halves = [[part.tensor_split(2)[rank] for part in pair] for pair in whole]
        found[name] = normalised(synced, halves, whole[0][0])
    dist.destroy_process_group()
    return found


if __name__ == "__main__":
    torch.save(normalise_half(sys.argv[1], rank=1), Path(sys.argv[1]) / "second.pt")
