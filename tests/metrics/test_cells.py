import numpy as np
import pytest
import torch

from foveate.membership import Exclusive
from foveate.metrics import iou_per_cell, loss_per_cell

IGNORED = 255


def cells_of(height, width, cell):
    for top in range(0, height, cell):
        for left in range(0, width, cell):
            yield np.s_[top : top + cell, left : left + cell]


def slow_loss(logits, labels, cell):
    log_probabilities = logits.log_softmax(dim=0)
    for place in cells_of(*labels.shape, cell):
        chosen = [
            -float(log_probabilities[:, *place][label, row, col])
            for (row, col), label in np.ndenumerate(labels[place].numpy())
            if label != IGNORED
        ]
        yield np.mean(chosen) if chosen else np.nan


def slow_iou(guess, labels, cell, classes):
    for place in cells_of(*labels.shape, cell):
        counted = labels[place] != IGNORED
        ious = []
        for c in range(classes):
            one, other = (guess[place] == c) & counted, (labels[place] == c) & counted
            if (one | other).any():
                ious.append(float((one & other).sum() / (one | other).sum()))
        yield np.mean(ious) if ious else np.nan


@pytest.mark.parametrize(("height", "width", "cell"), [(16, 24, 8), (13, 22, 5), (3, 4, 8), (5, 5, 1)])
def test_every_cell_has_its_own_loss_and_iou(height, width, cell):
    rng = torch.Generator().manual_seed(3)
    logits = 3 * torch.randn(4, height, width, generator=rng)
    labels = torch.randint(0, 5, (height, width), generator=rng)
    labels[labels == 4] = IGNORED
    labels[:cell, :cell] = IGNORED
    guess = logits.argmax(dim=0)
    loss, iou = (
        loss_per_cell(logits, labels, cell, Exclusive(IGNORED)),
        iou_per_cell(guess, labels, cell, 4, Exclusive(IGNORED)),
    )
    assert loss.shape == iou.shape == (-(-height // cell), -(-width // cell))
    np.testing.assert_allclose(loss.flatten(), list(slow_loss(logits, labels, cell)), rtol=1e-5)
    np.testing.assert_allclose(iou.flatten(), list(slow_iou(guess, labels, cell, 4)), rtol=1e-5)
    assert torch.isnan(loss[0, 0])
    assert torch.isnan(iou[0, 0])


def test_log_probabilities_and_logits_have_the_same_loss():
    logits, labels = torch.randn(3, 9, 9), torch.randint(0, 3, (9, 9))
    one, other = (
        loss_per_cell(values, labels, 4, Exclusive(IGNORED)) for values in (logits, logits.log_softmax(dim=0))
    )
    torch.testing.assert_close(one, other)
