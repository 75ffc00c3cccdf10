import pytest
import torch
from torch.autograd import gradcheck

from foveate.foveation.estimators import (
    Draw,
    FixedScale,
    GumbelSoftmax,
    Mixture,
    SoftExpectation,
    StraightThroughArgmax,
)

ESTIMATORS = [
    SoftExpectation(),
    StraightThroughArgmax(),
    StraightThroughArgmax(inverse=False),
    GumbelSoftmax(),
    GumbelSoftmax(hard=False),
    Mixture(),
    FixedScale(index=1),
]
HARD = [e for e in ESTIMATORS if not isinstance(e, SoftExpectation | Mixture) and getattr(e, "hard", True)]


def logits(n=7, scales=3):
    return torch.randn(n, scales, dtype=torch.float64, generator=torch.Generator().manual_seed(3))


@pytest.mark.parametrize("estimator", ESTIMATORS, ids=repr)
def test_rows_are_distributions(estimator):
    for weights in (estimator.weights(logits(), Draw()), estimator.inference_weights(logits())):
        assert (weights >= 0).all()
        torch.testing.assert_close(weights.sum(-1), torch.ones(7, dtype=torch.float64))


@pytest.mark.parametrize("estimator", HARD, ids=repr)
def test_hard_estimators_use_one_patch(estimator):
    for weights in (estimator.weights(logits(), Draw()), estimator.inference_weights(logits())):
        assert ((weights.round(decimals=6) == 1).sum(-1) == 1).all()


@pytest.mark.parametrize("estimator", ESTIMATORS, ids=repr)
def test_inference_is_deterministic(estimator):
    assert torch.equal(estimator.inference_weights(logits()), estimator.inference_weights(logits()))


def test_soft_expectation_gradient():
    assert gradcheck(lambda x: SoftExpectation().weights(x, Draw()), logits().requires_grad_())


def test_relaxed_gumbel_gradient():
    def fixed_noise(x):
        return GumbelSoftmax(hard=False).weights(x, Draw(0.3, torch.Generator().manual_seed(1)))

    assert gradcheck(fixed_noise, logits().requires_grad_())


@pytest.mark.parametrize("inverse", [False, True])
def test_straight_through_gradient_is_that_of_its_carrier(inverse):
    """d/dlogits of <w, v> must be that of <p, v>, or with `inverse` of <log p, v>: dp/p = d log p."""
    v = torch.randn(7, 3, dtype=torch.float64)
    x, y = logits().requires_grad_(), logits().requires_grad_()
    (StraightThroughArgmax(inverse=inverse).weights(x, Draw()) * v).sum().backward()
    carrier = y.log_softmax(-1) if inverse else y.softmax(-1)
    (carrier * v).sum().backward()
    torch.testing.assert_close(x.grad, y.grad)


def test_hard_gumbel_has_the_gradient_of_the_relaxed_sample():
    v = torch.randn(7, 3, dtype=torch.float64)
    grads = []
    for hard in (True, False):
        x = logits().requires_grad_()
        (GumbelSoftmax(hard=hard).weights(x, Draw(0, torch.Generator().manual_seed(5))) * v).sum().backward()
        grads.append(x.grad)
    torch.testing.assert_close(*grads)


def test_gumbel_samples_follow_the_probabilities():
    """The Gumbel-max trick: hard samples are exact draws from softmax(logits), whatever the temperature."""
    row = torch.tensor([0.5, 1.5, -1.0])
    draws = GumbelSoftmax().weights(row.expand(40_000, 3), Draw(0.5, torch.Generator().manual_seed(0)))
    torch.testing.assert_close(draws.mean(0), row.softmax(-1), atol=0.01, rtol=0)


def test_gumbel_temperature_falls_geometrically():
    estimator = GumbelSoftmax(tau=2.0, tau_end=0.5)
    assert [estimator.temperature(p) for p in (0, 0.5, 1, 2)] == pytest.approx([2, 1, 0.5, 0.5])


def test_gumbel_needs_its_generator_to_repeat():
    def draw(seed):
        return GumbelSoftmax().weights(logits(), Draw(0, torch.Generator().manual_seed(seed)))

    assert torch.equal(draw(1), draw(1))
    assert not torch.equal(draw(1), draw(2))


def test_fixed_scale_learns_nothing_and_reads_one_scale():
    x = logits().requires_grad_()
    estimator = FixedScale(index=2)
    assert not estimator.weights(x, Draw()).requires_grad
    assert not estimator.learns
    assert estimator.scales_read(3) == (2,)


def test_equal_probabilities_choose_the_narrowest():
    assert StraightThroughArgmax().inference_weights(torch.zeros(1, 3)).tolist() == [[1, 0, 0]]
