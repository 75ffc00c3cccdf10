from itertools import pairwise

import pytest

from foveate.errors import ConfigError
from foveate.training.config import TrainingConfig
from foveate.training.losses import LARGEST_WEIGHT, balanced_weights, resolve_class_weights
from foveate.training.task import learning_rate_factor, step_seed


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"steps": 0}, "steps.*greater than or equal to 1"),
        ({"locations_per_step": 10}, "images_per_step 4 must divide locations_per_step 10"),
        ({"learning_rate": 0}, "learning_rate.*greater than 0"),
        ({"learning_rate": float("inf")}, "learning_rate.*finite"),
        ({"optimizer": "lion"}, "optimizer.*'adamw', 'sgd' or 'adam'"),
        ({"precision": 16}, "precision.*'32' or 'bf16'"),
        ({"steps": 10, "warmup_steps": 10}, "warmup_steps 10 must be below steps 10"),
        ({"losses": {"cross_entropy": 0}}, "every loss has weight 0"),
        ({"losses": {"dice": -1}}, "losses.dice.*greater than or equal to 0"),
        ({"losses": {"focal": -1}}, "losses.focal.*greater than or equal to 0"),
        ({"class_weights": [0, 0]}, "at least one class a weight above 0"),
        ({"learning_rat": 1}, "did you mean 'learning_rate'"),
        ({"losses": {"dise": 1}}, "did you mean 'dice'"),
        ({"dice": 1}, "did you mean 'losses.dice'"),
    ],
)
def test_what_is_refused(values, message):
    with pytest.raises(ConfigError, match=message):
        TrainingConfig.parse(values)


@pytest.mark.parametrize("weights", [None, "balanced", (1.0, 2.0)])
def test_the_tree_is_parsed_again(weights):
    config = TrainingConfig(class_weights=weights, precision="bf16")
    assert TrainingConfig.parse(config.tree()) == config


def test_yaml_reads_precision_as_a_number():
    assert TrainingConfig.parse({"precision": 32}).precision == "32"


def test_checkpoints_follow_validation_unless_told():
    assert TrainingConfig(validate_every=7).checkpoint_interval == 7
    assert TrainingConfig(validate_every=7, checkpoint_every=3).checkpoint_interval == 3


def test_balanced_weights():
    weights = balanced_weights([100, 400, 0])
    assert weights[0] == pytest.approx(2 * weights[1])
    assert (weights[0] + weights[1]) / 2 == pytest.approx(1)
    assert weights[2] == 1
    assert max(balanced_weights([1] + [10**9] * 10)) == LARGEST_WEIGHT
    assert balanced_weights([0, 0]) == (1, 1)


def test_class_weights_must_fit_the_classes():
    assert resolve_class_weights(TrainingConfig(), 3, None) is None
    with pytest.raises(ConfigError, match="each of the 3 classes, got 2"):
        resolve_class_weights(TrainingConfig(class_weights=(1, 2)), 3, None)
    with pytest.raises(ConfigError, match="needs the pixel counts"):
        resolve_class_weights(TrainingConfig(class_weights="balanced"), 3, None)
    assert len(resolve_class_weights(TrainingConfig(class_weights="balanced"), 3, [1, 2, 3])) == 3


def test_seeds_differ_by_everything_they_depend_on():
    seeds = {
        step_seed(seed, step, rank, purpose)
        for seed in (0, 1)
        for step in range(50)
        for rank in (0, 1)
        for purpose in ("network", "policy")
    }
    assert len(seeds) == 400
    assert all(0 <= seed < 2**63 for seed in seeds)
    assert step_seed(1, 2, 3, "policy") == step_seed(1, 2, 3, "policy")


@pytest.mark.parametrize("name", ["poly", "cosine"])
def test_falling_schedules_go_from_one_to_zero(name):
    values = [learning_rate_factor(name, step, 20) for step in range(21)]
    assert values[0] == 1
    assert values[-1] == pytest.approx(0, abs=1e-12)
    assert all(a > b for a, b in pairwise(values))


def test_known_values():
    assert learning_rate_factor("poly", 5, 10) == pytest.approx(0.5**0.9)
    assert learning_rate_factor("cosine", 5, 10) == pytest.approx(0.5)
    assert learning_rate_factor("constant", 7, 10) == 1


@pytest.mark.parametrize("name", ["poly", "cosine", "constant"])
def test_warm_up_rises_to_one_and_hands_over(name):
    factors = [learning_rate_factor(name, step, 10, warmup_steps=4) for step in range(11)]
    assert factors[:5] == pytest.approx([0.2, 0.4, 0.6, 0.8, 1.0])
    assert all(factor > 0 for factor in factors[:10])
    assert factors[10] == pytest.approx(1 if name == "constant" else 0, abs=1e-12)


def test_a_finished_schedule_stays_at_its_end():
    assert learning_rate_factor("poly", 15, 10) == 0
    assert learning_rate_factor("cosine", 15, 10) == pytest.approx(0)
