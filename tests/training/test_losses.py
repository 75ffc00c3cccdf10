import math

import pytest
import torch
import torch.nn.functional as F

from foveate.membership import Exclusive, Overlapping
from foveate.training.config import LossConfig
from foveate.training.losses import SegmentationLoss

IGNORED = 255


def case(seed=0, classes=3):
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(2, classes, 5, 4, generator=generator)
    label = torch.randint(0, classes, (2, 5, 4), generator=generator)
    label[0, :2] = IGNORED
    return logits, label


def loss_of(name, logits, label, class_weights=None, **parameters):
    config = LossConfig.parse({"cross_entropy": 0} | {name: 1} | parameters)
    return SegmentationLoss(config, Exclusive(IGNORED), class_weights=class_weights)(logits, label).total


def valid_pixels(logits, label):
    for n, row, col in (label != IGNORED).nonzero().tolist():
        yield logits[n, :, row, col], int(label[n, row, col])


def pixel_cross_entropy(scores, true):
    return float(scores.logsumexp(0) - scores[true])


@pytest.mark.parametrize("weights", [None, (1.0, 2.0, 0.25)])
def test_cross_entropy_is_the_weighted_mean_over_valid_pixels(weights):
    logits, label = case()
    factors = weights or (1, 1, 1)
    pixels = [(factors[true], pixel_cross_entropy(scores, true)) for scores, true in valid_pixels(logits, label)]
    expected = sum(f * value for f, value in pixels) / sum(f for f, _ in pixels)
    assert float(loss_of("cross_entropy", logits, label, weights)) == pytest.approx(expected, rel=1e-5)
    torch_one = F.cross_entropy(logits, label, torch.tensor(factors, dtype=torch.float), ignore_index=IGNORED)
    assert float(torch_one) == pytest.approx(expected, rel=1e-5)


def test_dice_against_its_definition():
    logits, label = case()
    overlap, predicted, true_pixels = [0.0] * 3, [0.0] * 3, [0] * 3
    for scores, true in valid_pixels(logits, label):
        probs = scores.softmax(0)
        overlap[true] += float(probs[true])
        true_pixels[true] += 1
        for k in range(3):
            predicted[k] += float(probs[k])
    expected = sum(1 - 2 * overlap[k] / (predicted[k] + true_pixels[k]) for k in range(3)) / 3
    assert float(loss_of("dice", logits, label)) == pytest.approx(expected, rel=1e-5)


def test_focal_is_the_mean_weighted_by_difficulty():
    logits, label = case()
    expected = 0.0
    for k in range(3):
        terms = []
        for scores, true in valid_pixels(logits, label):
            value = float(F.softplus(-scores[k] if true == k else scores[k]))
            terms.append(((1 - math.exp(-value)) ** 2, value))
        expected += sum(hard * value for hard, value in terms) / sum(hard for hard, _ in terms) / 3
    assert float(loss_of("focal", logits, label)) == pytest.approx(expected, rel=1e-4)


@pytest.mark.parametrize("name", ["cross_entropy", "dice", "focal"])
def test_ignored_pixels_do_not_count(name):
    logits, label = case()
    other = logits.clone()
    other[0, :, :2] = 100 * torch.randn(3, 2, 4)
    weights = (1.0, 2.0, 3.0)
    assert torch.equal(loss_of(name, logits, label, weights), loss_of(name, other, label, weights))


@pytest.mark.parametrize("name", ["cross_entropy", "dice", "focal"])
@pytest.mark.parametrize("weights", [None, (1.0, 0.0, 2.0)])
def test_no_valid_pixel_gives_zero_with_a_gradient(name, weights):
    logits = torch.randn(2, 3, 4, 4, requires_grad=True)
    total = loss_of(name, logits, torch.full((2, 4, 4), IGNORED, dtype=torch.uint8), weights)
    total.backward()
    assert total.item() == 0
    assert torch.equal(logits.grad, torch.zeros_like(logits))


@pytest.mark.parametrize("name", ["cross_entropy", "dice", "focal"])
def test_a_perfect_prediction_costs_nothing(name):
    _, label = case()
    logits = 60 * F.one_hot(torch.where(label == IGNORED, 0, label), 3).permute(0, 3, 1, 2).float() - 30
    assert float(loss_of(name, logits, label)) == pytest.approx(0, abs=1e-6)


def test_total_is_the_weighted_sum_of_its_parts():
    logits, label = case()
    config = LossConfig(cross_entropy=0.5, dice=2, focal=0.25)
    loss = SegmentationLoss(config, Exclusive(IGNORED))(logits, label)
    assert list(loss.parts) == ["cross_entropy", "dice", "focal"]
    expected = sum(getattr(config, name) * value for name, value in loss.parts.items())
    assert float(loss.total) == pytest.approx(float(expected))


def test_labels_of_any_integer_type_and_half_logits():
    logits, label = case()
    whole = loss_of("dice", logits.bfloat16(), label.to(torch.uint8))
    assert whole.dtype == torch.float32
    assert float(whole) == pytest.approx(float(loss_of("dice", logits, label)), abs=0.01)


def test_class_weights_are_not_in_the_state():
    loss = SegmentationLoss(LossConfig(), Exclusive(IGNORED), class_weights=(1, 2, 3))
    assert not loss.state_dict()


def overlapping_case():
    generator = torch.Generator().manual_seed(1)
    logits = torch.randn(2, 3, 5, 4, generator=generator)
    label = torch.randint(0, 8, (2, 5, 4), generator=generator, dtype=torch.int32)
    label[0, :2] = -1
    yes = torch.stack([(label >> k & 1).float() for k in range(3)], dim=1)
    return logits, label, yes, label != -1


def overlapping_loss(name, logits, label, **options):
    config = LossConfig.parse({"cross_entropy": 0} | {name: 1} | options)
    return float(SegmentationLoss(config, Overlapping())(logits, label).total)


def test_losses_of_overlapping_classes_are_those_of_each_yes_or_no():
    logits, label, yes, counted = overlapping_case()
    right = torch.where(yes == 1, logits.sigmoid(), 1 - logits.sigmoid())
    each = -right.log().movedim(1, -1)[counted]  # (pixels, classes)
    assert overlapping_loss("cross_entropy", logits, label) == pytest.approx(float(each.mean()), rel=1e-5)
    factor = (1 - right.movedim(1, -1)[counted]) ** 2
    expected = float((factor * each).sum() / factor.sum())
    assert overlapping_loss("focal", logits, label) == pytest.approx(expected, rel=1e-4)
    shares, truth = (values.movedim(1, -1)[counted] for values in (logits.sigmoid(), yes))
    dice = 1 - 2 * (shares * truth).sum(0) / (shares.sum(0) + truth.sum(0))
    assert overlapping_loss("dice", logits, label) == pytest.approx(float(dice.mean()), rel=1e-5)


def test_class_weights_of_overlapping_classes():
    logits, label, yes, counted = overlapping_case()
    each = F.binary_cross_entropy_with_logits(logits, yes, reduction="none").movedim(1, -1)[counted]
    weights = torch.tensor([1.0, 2.0, 0.5])
    loss = SegmentationLoss(LossConfig.parse({}), Overlapping(), class_weights=weights.tolist())(logits, label).total
    assert float(loss) == pytest.approx(float((each * weights).sum() / (weights.sum() * len(each))), rel=1e-5)


@pytest.mark.parametrize("name", ["cross_entropy", "dice", "focal"])
def test_nothing_counted_of_overlapping_classes_is_a_loss_of_zero(name):
    logits = torch.randn(1, 3, 4, 4, requires_grad=True)
    config = LossConfig.parse({"cross_entropy": 0} | {name: 1})
    loss = SegmentationLoss(config, Overlapping())(logits, torch.full((1, 4, 4), -1, dtype=torch.int32)).total
    loss.backward()
    assert float(loss.detach()) == 0
    assert not logits.grad.any()
