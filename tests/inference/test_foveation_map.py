import torch

from foveate.foveation.estimators import FixedScale
from foveate.inference.field import expected_view, scale_probabilities
from foveate.paper import SoftExpectation
from foveate.patches import ScaleSet


def test_expected_view_weighs_the_scales_as_the_estimator_uses_them():
    scales = ScaleSet(8, (8, 16, 64))
    logits = torch.tensor([0.5, 0.5, 1e-30]).log().view(3, 1, 1).expand(3, 2, 4)
    soft = scale_probabilities(logits, SoftExpectation())
    torch.testing.assert_close(expected_view(soft, scales), torch.full((2, 4), 12.0))
    fixed = scale_probabilities(logits, FixedScale(index=2))
    torch.testing.assert_close(expected_view(fixed, scales), torch.full((2, 4), 64.0))
