import pytest
import torch
from torch.autograd import gradcheck

from foveate.errors import ConfigError
from foveate.foveation.config import ESTIMATORS, FoveationConfig
from foveate.foveation.estimator import Asked, Draw, Learned, shares_of
from foveate.foveation.estimators import CoarseFirst, Ensemble, FixedScale, GumbelSoftmax, Mixture
from foveate.paper import RandomScale, ScoreFunction, SoftExpectation, StraightThroughArgmax, UniformAverage

KINDS = [
    SoftExpectation(),
    StraightThroughArgmax(),
    StraightThroughArgmax(name="mode_plain"),
    GumbelSoftmax(),
    GumbelSoftmax(name="gumbel_soft"),
    ScoreFunction(),
    Mixture(),
    Mixture(top=2),
    Mixture(top=None),
    CoarseFirst(),
    FixedScale(index=1),
    RandomScale(),
    UniformAverage(),
]
SOFT = SoftExpectation | Mixture | UniformAverage | CoarseFirst
HARD = [e for e in KINDS if not isinstance(e, SOFT) and e.name != "gumbel_soft"]


def logits(n=7, scales=3):
    return torch.randn(n, scales, dtype=torch.float64, generator=torch.Generator().manual_seed(3))


def used(estimator):
    """How much each scale counts at inference."""
    return shares_of(estimator.looks(logits()))


@pytest.mark.parametrize("estimator", KINDS, ids=repr)
def test_rows_are_distributions(estimator):
    for weights in (estimator.weights(logits(), Draw()), used(estimator)):
        assert (weights >= 0).all()
        torch.testing.assert_close(weights.sum(-1), torch.ones(7, dtype=torch.float64))


@pytest.mark.parametrize("estimator", HARD, ids=repr)
def test_hard_estimators_use_one_patch(estimator):
    for weights in (estimator.weights(logits(), Draw()), used(estimator)):
        assert ((weights.round(decimals=6) == 1).sum(-1) == 1).all()


@pytest.mark.parametrize("estimator", KINDS, ids=repr)
def test_inference_is_deterministic(estimator):
    assert torch.equal(used(estimator), used(estimator))


def test_soft_expectation_gradient():
    assert gradcheck(lambda x: SoftExpectation().weights(x, Draw()), logits().requires_grad_())


def test_relaxed_gumbel_gradient():
    def fixed_noise(x):
        return GumbelSoftmax(name="gumbel_soft").weights(x, Draw(0.3, torch.Generator().manual_seed(1)))

    assert gradcheck(fixed_noise, logits().requires_grad_())


@pytest.mark.parametrize("name", ["mode", "mode_plain"])
def test_straight_through_gradient_is_that_of_its_carrier(name):
    """d/dlogits of <w, v> must be that of <log p, v>, or plainly of <p, v>: dp/p = d log p."""
    v = torch.randn(7, 3, dtype=torch.float64)
    x, y = logits().requires_grad_(), logits().requires_grad_()
    (StraightThroughArgmax(name=name).weights(x, Draw()) * v).sum().backward()
    carrier = y.log_softmax(-1) if name == "mode" else y.softmax(-1)
    (carrier * v).sum().backward()
    torch.testing.assert_close(x.grad, y.grad)


def test_hard_gumbel_has_the_gradient_of_the_relaxed_sample():
    v = torch.randn(7, 3, dtype=torch.float64)
    grads = []
    for name in ("gumbel", "gumbel_soft"):
        x = logits().requires_grad_()
        (GumbelSoftmax(name=name).weights(x, Draw(0, torch.Generator().manual_seed(5))) * v).sum().backward()
        grads.append(x.grad)
    torch.testing.assert_close(*grads)


def test_gumbel_samples_follow_the_probabilities():
    """The Gumbel-max trick: hard samples are exact draws from softmax(logits), whatever the temperature."""
    row = torch.tensor([0.5, 1.5, -1.0])
    draws = GumbelSoftmax().weights(row.expand(40_000, 3), Draw(0.5, torch.Generator().manual_seed(0)))
    torch.testing.assert_close(draws.mean(0), row.softmax(-1), atol=0.01, rtol=0)


def test_gumbel_temperature_falls_geometrically():
    estimator = GumbelSoftmax(tau_end=0.25)
    assert [estimator.temperature(p) for p in (0, 0.5, 1, 2)] == pytest.approx([1, 0.5, 0.25, 0.25])


def test_gumbel_needs_its_generator_to_repeat():
    def draw(seed):
        return GumbelSoftmax().weights(logits(), Draw(0, torch.Generator().manual_seed(seed)))

    assert torch.equal(draw(1), draw(1))
    assert not torch.equal(draw(1), draw(2))


def test_fixed_scale_learns_nothing_and_reads_one_scale():
    x = logits().requires_grad_()
    estimator = FixedScale(index=2)
    assert not estimator.weights(x, Draw()).requires_grad
    assert not isinstance(estimator, Learned)
    assert estimator.reads(3).scales == (2,)


def test_equal_probabilities_choose_the_narrowest():
    assert shares_of(StraightThroughArgmax().looks(torch.zeros(1, 3))).tolist() == [[1, 0, 0]]


def inference_weights(estimator, rows):
    """How the scales count at inference, restated: the softmax of the most probable ones, all alike, or one."""
    if isinstance(estimator, FixedScale):
        return torch.eye(3, dtype=torch.float64)[[estimator.index] * len(rows)]
    if isinstance(estimator, UniformAverage | Ensemble | CoarseFirst):
        return torch.full_like(rows, 1 / 3)
    soft = isinstance(estimator, SoftExpectation | Mixture)
    most = (getattr(estimator, "top", None) or 3) if soft else 1
    kept = rows >= rows.sort(descending=True).values[:, most - 1 : most]
    return rows.masked_fill(~kept, -torch.inf).softmax(-1)


@pytest.mark.parametrize("estimator", [*KINDS, Ensemble()], ids=repr)
def test_looks_share_the_place_as_the_inference_weights_say(estimator):
    looks = estimator.looks(logits())
    torch.testing.assert_close(sum(look.weight for look in looks).double(), torch.ones(7, dtype=torch.float64))
    mixed = sum(look.weight[:, None] * look.scale_weights for look in looks)
    torch.testing.assert_close(mixed.double(), inference_weights(estimator, logits()))


@pytest.mark.parametrize(("top", "passes"), [(1, 1), (2, 2), (3, 3), (9, 3), (None, 3)])
def test_a_mixture_passes_as_many_scales_as_asked(top, passes):
    looks = Mixture(top=top).looks(logits())
    assert (torch.stack([look.weight for look in looks]) > 0).sum(0).tolist() == [passes] * 7


def test_random_scales_are_drawn_anew_and_evenly_whatever_the_logits():
    certain = torch.tensor([9.0, 0.0, 0.0]).expand(30_000, 3)
    one = RandomScale().weights(certain, Draw(0, torch.Generator().manual_seed(1)))
    two = RandomScale().weights(certain, Draw(0, torch.Generator().manual_seed(2)))
    torch.testing.assert_close(one.mean(0), torch.full((3,), 1 / 3), atol=0.01, rtol=0)
    torch.testing.assert_close((one == two).all(-1).float().mean(), torch.tensor(1 / 3), atol=0.01, rtol=0)


def test_random_scales_are_kept_at_inference():
    def map_of(seed):
        asked = Asked((3000, 3), policy=lambda: pytest.fail("there is none"), seed=seed)
        return shares_of(RandomScale().looks(RandomScale().logits(asked)))

    assert torch.equal(map_of(4), map_of(4))
    assert not torch.equal(map_of(4), map_of(5))
    torch.testing.assert_close(map_of(4).mean(0), torch.full((3,), 1 / 3), atol=0.04, rtol=0)


def test_the_score_function_gradient_is_that_of_the_expected_loss():
    """Mean over many samples = d/dlogits of sum_s p_s L_s, for the mean over locations, whose sign matters."""
    row = torch.tensor([0.3, -0.5, 1.0], dtype=torch.float64)
    loss_of = torch.tensor([1.0, 3.0, 2.0], dtype=torch.float64)
    exact = row.clone().requires_grad_()
    (exact.softmax(-1) @ loss_of).backward()
    sampled = row.expand(200_000, 3).clone().requires_grad_()
    estimator = ScoreFunction()
    weights = estimator.weights(sampled, Draw(0, torch.Generator().manual_seed(0)))
    assert not weights.requires_grad
    estimator.policy_loss(sampled, weights, weights @ loss_of).backward()
    torch.testing.assert_close(sampled.grad.sum(0), exact.grad, atol=5e-3, rtol=0)


def test_the_baseline_takes_away_what_all_samples_share():
    x = logits().requires_grad_()
    weights = ScoreFunction().weights(x, Draw(0, torch.Generator().manual_seed(0)))
    ScoreFunction().policy_loss(x, weights, torch.full((7,), 5.0, dtype=torch.float64)).backward()
    torch.testing.assert_close(x.grad, torch.zeros_like(x))


def test_the_score_function_needs_two_locations():
    with pytest.raises(ConfigError, match="at least 2 locations"):
        ScoreFunction().policy_loss(logits(1), logits(1).softmax(-1), torch.ones(1))


def test_an_ensemble_is_not_trained_itself():
    with pytest.raises(ConfigError, match="FixedScale"):
        Ensemble().weights(logits(), Draw())


def test_a_configuration_names_every_estimator_of_the_registry():
    names = [kind.model_fields["name"].default for kind in ESTIMATORS]
    assert len(set(names)) == len(names)
    for name, kind in zip(names, ESTIMATORS, strict=True):
        config = {"patch_size": 8, "fields_of_view": [8, 16], "estimator": {"name": name}}
        assert type(FoveationConfig.parse(config).estimator) is kind
