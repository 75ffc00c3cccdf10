import copy
import pickle

import pytest
import torch
from torch import nn

from foveate.networks.batch_norm import SingleValueBatchNorm2d, allow_single_values
from foveate.networks.build import build_network
from foveate.networks.menu import ARCHITECTURES


def normalised(value=1.0):
    network = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.BatchNorm2d(3))
    nn.init.constant_(network[1].running_mean, value)
    nn.init.normal_(network[1].weight)
    return network


def test_a_single_value_is_normalised_by_the_running_statistics_which_stay():
    network = normalised()
    allow_single_values(network)
    image = torch.rand(1, 3, 4, 4)
    state = copy.deepcopy(network.state_dict())
    trained = network(image)
    assert all(torch.equal(value, state[key]) for key, value in network.state_dict().items())
    torch.testing.assert_close(trained, network.eval()(image))
    trained.sum().backward()
    assert network[1].weight.grad.abs().sum() > 0


def test_anything_else_is_as_before():
    plain, patched = normalised(), normalised()
    patched.load_state_dict(plain.state_dict())
    allow_single_values(patched)
    for image in (torch.rand(2, 3, 4, 4), torch.rand(5, 3, 1, 1)):
        assert torch.equal(plain(image), patched(image))
    assert all(torch.equal(value, plain.state_dict()[key]) for key, value in patched.state_dict().items())


def test_the_network_can_be_copied_and_sent_to_other_processes():
    network = normalised()
    allow_single_values(network)
    for again in (copy.deepcopy(network), pickle.loads(pickle.dumps(network))):
        assert type(again[1]) is SingleValueBatchNorm2d
        assert again(torch.rand(1, 3, 4, 4)).shape == (1, 3, 1, 1)


@pytest.mark.parametrize(
    "architecture", [name for name in ARCHITECTURES if name != "dpt"]
)  # dpt takes transformers only
def test_every_architecture_trains_on_a_batch_of_one(architecture):
    network = build_network(architecture, "resnet18", classes=2, weights=None)
    output = network(torch.rand(1, 3, 128, 128))
    logits = output[0] if isinstance(output, tuple) else output
    logits.sum().backward()
    assert torch.isfinite(logits).all()


@pytest.mark.parametrize("encoder", ["tu-skresnet18", "resnest14d"])
def test_encoders_that_normalise_after_pooling_train_on_a_batch_of_one(encoder):
    network = build_network("c1", encoder, classes=2, weights=None)
    assert torch.isfinite(network(torch.rand(1, 3, 64, 64))).all()
