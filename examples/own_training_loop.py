"""A learned field of view in a plain PyTorch loop, on one image: python own_training_loop.py [STEPS]"""

import sys

import torch
from torch import nn

import foveate
from foveate.patches import overview_of


def make_image(side: int = 256) -> tuple[torch.Tensor, torch.Tensor]:
    """Bright discs on dark ground, (1, 3, H, W), and which pixels they cover, (1, H, W). Put your own image here."""
    rows, cols = torch.meshgrid(torch.arange(side), torch.arange(side), indexing="ij")
    centres = [(60, 70, 40), (180, 60, 15), (120, 190, 50), (220, 220, 10)]
    label = sum((rows - r) ** 2 + (cols - c) ** 2 < radius**2 for r, c, radius in centres).clamp(max=1)
    return (label + 0.5 * torch.randn(3, side, side))[None], label[None].long()


torch.manual_seed(0)
image, label = make_image()
network = nn.Sequential(nn.Conv2d(3, 16, 5, padding=2), nn.ReLU(), nn.Conv2d(16, 2, 5, padding=2))  # any network
scales = foveate.ScaleSet(patch_size=32, fields_of_view=(32, 64, 128))
segmenter = foveate.FoveatedSegmenter(network, scales, overview_downsample=16)
optimizer = torch.optim.Adam(segmenter.parameters(), lr=3e-3)

for step in range(int(sys.argv[1]) if len(sys.argv) > 1 else 40):
    loss = nn.functional.cross_entropy(segmenter(image), label)
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    if step % 5 == 0:
        overview = overview_of(image, segmenter.overview_downsample, segmenter.policy.margin)
        shares = segmenter.scale_logits(overview).softmax(dim=1).mean(dim=(0, 2, 3)).tolist()
        used = ", ".join(f"{view} px {share:.0%}" for view, share in zip(scales.fields_of_view, shares, strict=True))
        print(f"step {step:3d}  loss {loss.item():.4f}  fields of view: {used}")
