import copy
import subprocess
import sys

import pytest
import torch
from sync_worker import CASES, batches, normalise_half, normalised
from sync_worker import __file__ as worker
from timm.layers import BatchNormAct2d
from torch import nn

from foveate.networks.build import build_network
from foveate.training.processes import BatchNormSync


@pytest.fixture(scope="module")
def halves(tmp_path_factory):
    """What two processes made of the halves of each case's batches."""
    folder = tmp_path_factory.mktemp("halves")
    with subprocess.Popen([sys.executable, worker, folder]) as other:
        first = normalise_half(folder, rank=0)
    assert other.returncode == 0
    return first, torch.load(folder / "second.pt")


@pytest.mark.parametrize("case", CASES)
def test_two_halves_are_normalised_as_the_whole(halves, case):
    layer, shape = CASES[case]
    inference = batches(shape)[0][0]
    whole = normalised(copy.deepcopy(layer), batches(shape), inference)
    first, second = (half[case] for half in halves)
    # Sums are made in another order than torch's, which leaves some digits of float32.
    same = {"rtol": 1e-4, "atol": 1e-5}
    for expected, *found in zip(whole["per_value"], first["per_value"], second["per_value"], strict=True):
        torch.testing.assert_close(torch.cat(found), expected, **same)
    # The gradients of parameters are of each process's own values; DDP adds them up.
    for expected, *found in zip(whole["parameters"], first["parameters"], second["parameters"], strict=True):
        torch.testing.assert_close(sum(found), expected, **same)
    for half in (first, second):
        torch.testing.assert_close(half["state"], whole["state"], **same)
        torch.testing.assert_close(half["inference"], whole["inference"], **same)


def test_layers_get_their_class_back_and_keep_everything_else():
    model = nn.Sequential(nn.BatchNorm2d(3), nn.ModuleDict({"inner": BatchNormAct2d(3)}), nn.Conv2d(3, 3, 1))
    layers, parameters, names = list(model.modules()), list(model.parameters()), list(model.state_dict())
    classes = [type(layer) for layer in layers]
    sync = BatchNormSync()
    assert sync.apply(model) is model
    changed = [kind for layer, kind in zip(layers, classes, strict=True) if type(layer) is not kind]
    assert changed == [nn.BatchNorm2d, BatchNormAct2d]
    assert list(model.state_dict()) == names
    assert sync.revert(model) is model
    assert [type(layer) for layer in model.modules()] == classes
    assert all(one is other for one, other in zip(model.parameters(), parameters, strict=True))


@pytest.mark.parametrize("encoder", ["resnet18", "tu-mobilenetv3_small_100"])
def test_every_layer_of_a_built_network_is_synchronised(encoder):
    network = build_network("deeplabv3plus", encoder, classes=2, weights=None)
    layers = [layer for layer in network.modules() if isinstance(layer, nn.modules.batchnorm._BatchNorm)]
    before = [type(layer) for layer in layers]
    BatchNormSync().apply(network)
    assert before
    assert all(type(layer) is not kind for layer, kind in zip(layers, before, strict=True))


def test_a_layer_with_a_forward_of_its_own_is_left_alone():
    class Own(nn.BatchNorm2d):
        def forward(self, batch):
            return super().forward(batch) + 1

    model = BatchNormSync().apply(nn.Sequential(Own(3)))
    assert type(model[0]) is Own


@pytest.mark.parametrize("kind", [nn.BatchNorm2d, BatchNormAct2d])
def test_alone_a_synchronised_layer_normalises_as_before(kind):
    torch.manual_seed(0)
    plain, batch = kind(3), torch.randn(4, 3, 5, 5)
    synced = BatchNormSync().apply(copy.deepcopy(plain))
    torch.testing.assert_close(synced(batch), plain(batch))
    assert torch.equal(synced.eval()(batch.bfloat16()).float(), synced(batch.bfloat16()).float())
    assert synced.train()(batch.bfloat16()).dtype == torch.bfloat16
