"""What a closer look is expected to bring: how uncertain the wide look is about a place, and how large the place is."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from foveate.geometry import Size, Window, ceil_div
from foveate.inference.planning.pyramid import share_inside
from foveate.patches.alignment import crop_central
from foveate.patches.extraction import Windows


def entropy_of_parts(logits: Tensor, kept: float, parts: int) -> Tensor:
    """Mean entropy of the predicted class over the parts of each window's kept centre.

    Args:
        logits: (N, C, P', P') over whole windows.
        kept: side of the kept centre as a share of the window's, in (0, 1].
        parts: the centre is divided into parts x parts.

    Returns:
        (N, parts ** 2) in nats, row by row: 0 where the prediction is certain, log C where it knows nothing.
    """
    log_probs = logits.float().log_softmax(dim=1)
    entropy = -(log_probs.exp() * log_probs).sum(dim=1, keepdim=True)
    samples = max(1, ceil_div(round(kept * logits.shape[-1]), parts))
    central = crop_central(entropy, kept, parts * samples)
    return F.avg_pool2d(central, samples).flatten(1)


def gains_of(entropy: Tensor, supports: Windows, narrowest: int, image: Size) -> Tensor:
    """Gain of a look at each support: its entropy, times the narrowest supports that it covers inside the image.

    Args:
        entropy: (N,) mean entropy of the wide look over each support, in nats.
        supports: N of them.
        narrowest: side of the supports of the closest look, level-0 pixels.
        image: size of the image.

    Returns:
        (N,).
    """
    return entropy * (supports.side / narrowest) ** 2 * share_inside(supports, Window.of(image))
