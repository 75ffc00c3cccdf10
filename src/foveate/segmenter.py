"""`FoveatedSegmenter`: any segmentation network, and a policy that chooses how wide it looks at every place."""

from collections.abc import Callable
from typing import NamedTuple, Self

import torch

from foveate.errors import GeometryError, NetworkError
from foveate.foveation.estimator import Asked, Draw, Estimator, Joint, Learned, LocationOutput, Reading, shares_of
from foveate.foveation.estimators import GumbelSoftmax
from foveate.geometry import CellGrid, Size, ceil_div
from foveate.membership import Exclusive, Membership
from foveate.networks import NetworkPerScale, PolicyNetwork, ScaleEmbedding, cast_for, heads_of
from foveate.patches import extraction
from foveate.patches.scales import ScaleSet, assembled, chosen_crops, middle_of, resize_logits, weighted_crops
from foveate.types import Alignment


class Places(NamedTuple):
    """N locations as they are read for training, in the network's range."""

    patches: torch.Tensor  # (N, S', C_in, P, P)
    scales: torch.Tensor  # (N, S') scale of each
    nesting: torch.Tensor  # (N, S', 4) see `foveate.data.locations.Location`
    overview: Callable[[], torch.Tensor]  # gives the overviews (N, C_in, 2r+1, 2r+1), where the policy is asked


class Tiles(NamedTuple):
    """Windows of one side that tile an image from its corner, row by row."""

    windows: extraction.Windows
    rows: int
    cols: int

    @classmethod
    def over(cls, image: torch.Tensor, side: int) -> Self:
        """Those of images (B, C, H, W); the last of a row or column may end outside."""
        rows, cols = ceil_div(image.shape[-2], side), ceil_div(image.shape[-1], side)
        tops, lefts = (torch.arange(count, device=image.device) * side for count in (rows, cols))
        grid = torch.cartesian_prod(tops, lefts).reshape(-1, 2)
        return cls(extraction.Windows(grid[:, 0], grid[:, 1], side), rows, cols)

    def joined(self, logits: torch.Tensor, image: torch.Tensor) -> torch.Tensor:
        """Logits (B, C, H, W) of images from those of all their tiles (B n, C, P', P')."""
        count, side, (height, width) = len(image), self.windows.side, image.shape[-2:]
        tiles = resize_logits(logits, side).view(count, self.rows, self.cols, -1, side, side).permute(0, 3, 1, 4, 2, 5)
        return tiles.reshape(count, tiles.shape[1], self.rows * side, -1)[..., :height, :width]


class FoveatedSegmenter(torch.nn.Module):
    """Tensor in, tensor out: `logits = segmenter(image)`, with a learned field of view for every place.

    Args:
        network: any module (N, C_in, P, P) -> (N, classes, P', P') that returns logits, alone, as `.logits`
            (transformers) or in a dictionary (torchvision), or in training `DeepSupervision`; or a `NetworkPerScale`.
        scales: the patch size P and the fields of view to choose from.
        in_channels: number of image bands C_in.
        overview_downsample: level-0 pixels per overview pixel; the policy decides once per such cell.
        estimator: how the policy's logits are used; `GumbelSoftmax()` by default.
        policy: the policy network; the paper's by default.
        alignment: "aligned", or "paper" to take a patch's whole output for the target whatever its field of view.
        tell_scale: tell the network the scale of a patch, by a learned gain and offset of each channel.
        membership: how classes are read off logits: one of them a pixel by default, or any with `Overlapping()`.

    Source: arXiv 2007.15124, with aligned prediction instead of its output convention.
    """

    def __init__(  # noqa: PLR0913 - the method's choices
        self,
        network: torch.nn.Module,
        scales: ScaleSet,
        *,
        in_channels: int = 3,
        overview_downsample: int = 16,
        estimator: Estimator | None = None,
        policy: PolicyNetwork | None = None,
        alignment: Alignment = "aligned",
        tell_scale: bool = False,
        membership: Membership = Exclusive(),  # noqa: B008 - immutable
    ) -> None:
        super().__init__()
        self.in_channels = in_channels
        self.overview_downsample = overview_downsample
        self.scales, self.estimator = scales, estimator or GumbelSoftmax()
        self.network = self.estimator.around(network, scales) if isinstance(self.estimator, Joint) else network
        self.alignment = alignment
        self.membership = membership
        # Who always sees one scale has nothing to be told.
        told = tell_scale and len(self._reading.scales) > 1
        self.scale_embedding = ScaleEmbedding(len(scales), in_channels) if told else None
        self.policy = policy or PolicyNetwork(in_channels, len(scales))
        # A policy nobody asks has no gradient, which optimisers and DDP must know.
        self.policy.layers.requires_grad_(self.has_policy)

    def forward(self, image: torch.Tensor, draw: Draw = Draw()) -> torch.Tensor:  # noqa: B008 - immutable
        """Segment whole images held in memory, in one batch of all their targets.

        Trains (differentiable, the estimator's training weights) in train mode, and is deterministic in eval mode.
        For files, and for images too large for this, use `foveate.predict`.

        Args:
            image: (B, C_in, H, W) float, any size.
            draw: progress and randomness for the estimator.

        Returns:
            Logits (B, classes, H, W).

        Raises:
            GeometryError: when the tensor has not this shape, or holds whole numbers.
            NetworkError: when the network's output is not (N, classes, P', P').
        """
        self._check_image(image)
        tiles = Tiles.over(image, self.scales.target)
        scale_logits = self._logits_at(self._whole_logits(image), tiles.windows, image)
        patches = torch.cat([self._patches(one, tiles.windows) for one in image])
        return tiles.joined(self.forward_locations(scale_logits, patches, draw).logits, image)

    def _check_image(self, image: torch.Tensor) -> None:
        if image.dim() != 4 or image.shape[1] != self.in_channels:
            hint = f"; for {image.shape[1]} channels set in_channels={image.shape[1]}" if image.dim() == 4 else ""
            raise GeometryError(f"expected an image (B, {self.in_channels}, H, W), got {tuple(image.shape)}{hint}")
        if not image.numel():
            raise GeometryError(f"an image of shape {tuple(image.shape)} has no pixels")
        if not image.is_floating_point():
            raise GeometryError(
                f"expected an image of floats, as the network takes them, got {image.dtype}; for example image / 255"
            )

    @property
    def views_passed(self) -> tuple[int, ...]:
        """The fields of view that the estimator ever uses."""
        return self.scales.only(self._reading.scales)

    @property
    def has_policy(self) -> bool:
        """Whether the policy is asked, and learns."""
        return isinstance(self.estimator, Learned)

    @property
    def _reading(self) -> Reading:
        return self.estimator.reads(len(self.scales))

    def scale_logits(self, overview: torch.Tensor) -> torch.Tensor:
        """The policy's logits (B, S, h, w) for an overview with its margin (B, C_in, h + 2 m, w + 2 m)."""
        logits: torch.Tensor = self.policy(overview)
        return logits

    def forward_places(self, places: Places, draw: Draw = Draw()) -> LocationOutput:  # noqa: B008 - immutable
        """Predict the targets of N locations as they were read; see `forward_locations`."""
        shape = (len(places.patches), len(self.scales))

        def policy() -> torch.Tensor:
            # In bfloat16 probabilities would be off by up to 1%.
            return self.scale_logits(places.overview()).flatten(1).float()

        drawn = torch.nn.functional.one_hot(places.scales[:, 0], shape[1]).float() if self.training else None
        logits = self.estimator.logits(Asked(shape, policy, drawn=drawn)).to(places.patches.device)
        return self.forward_locations(logits, places.patches, draw)

    def forward_locations(
        self,
        scale_logits: torch.Tensor,
        patches: torch.Tensor,
        draw: Draw = Draw(),  # noqa: B008
    ) -> LocationOutput:
        """Predict N targets from their scale logits and patches.

        Args:
            scale_logits: (N, S).
            patches: (N, S, C_in, P, P), or (N, S', C_in, P, P) with only the scales the estimator reads, or
                (N, 1, C_in, P, P) in training where it draws one, which the scale logits then name.
            draw: progress and randomness for the estimator (train mode only).
        """
        if not self.training:
            return self._predict(scale_logits, patches)
        return self.estimator.train(self, scale_logits, patches, draw)

    def _predict(self, scale_logits: torch.Tensor, patches: torch.Tensor) -> LocationOutput:
        """The estimator's looks at every place, averaged by their weights."""
        looks = self.estimator.looks(scale_logits)
        outputs = [self.pass_mixed(scale_logits, patches, look.scale_weights) for look in looks]
        if len(looks) == 1:
            return outputs[0]
        aligned = torch.stack([output.logits for output in outputs], dim=1)
        logits = self._mixture(aligned, torch.stack([look.weight for look in looks], dim=1).log())
        return outputs[0]._replace(logits=logits, scale_weights=shares_of(looks))

    def pass_mixed(self, scale_logits: torch.Tensor, patches: torch.Tensor, weights: torch.Tensor) -> LocationOutput:
        """One pass per location: the network sees the weighted sum of the patches."""
        heads = self._run_network(self._mixed(patches, weights), weights)
        logits, *auxiliary = (self.over_supports(head, weights, self.scales.target) for head in heads)
        keeps = self.training and self._reading.windows
        own = heads[0][:, None] if keeps else logits.new_empty(len(logits), 0)
        return LocationOutput(logits, scale_logits, weights, own, tuple(auxiliary))

    def _mixed(self, patches: torch.Tensor, weights: torch.Tensor) -> torch.Tensor:
        """The network's input (N, C_in, P, P): the sum of a location's patches, or the only one that was read."""
        reading = self._reading
        read = list(reading.scales)
        if patches.shape[1] == 1 and reading.drawn:
            return patches[:, 0]
        if patches.shape[1] not in (len(read), len(self.scales)):
            raise GeometryError(f"expected patches of {len(read)} or {len(self.scales)} scales, got {patches.shape[1]}")
        if isinstance(self.estimator, Joint):
            return self.estimator.joined(patches[:, [0, -1]], self.scales)
        used = weights if patches.shape[1] == len(self.scales) else weights[:, read]
        return torch.einsum("ns,nschw->nchw", used.to(patches.dtype), patches)

    def pass_each(self, scale_logits: torch.Tensor, patches: torch.Tensor, weights: torch.Tensor) -> LocationOutput:
        """One pass per location and scale: log sum_s p_s softmax(aligned logits of scale s), a log-probability."""
        places, scales = len(patches), len(self.scales)
        one_hot = torch.eye(scales, device=patches.device).repeat(places, 1)
        heads = self._run_network(patches.flatten(0, 1), one_hot)
        aligned = [self.over_supports(head, one_hot, self.scales.target) for head in heads]
        log_weights = scale_logits.log_softmax(dim=-1)
        mixtures = [self._mixture(one.view(places, scales, *one.shape[1:]), log_weights) for one in aligned]
        own = heads[0].view(places, scales, *heads[0].shape[1:])
        return LocationOutput(mixtures[0], scale_logits, weights, own, tuple(mixtures[1:]))

    def predict_windows(self, patches: torch.Tensor, scale_weights: torch.Tensor) -> torch.Tensor:
        """Run the network once, for inference.

        Args:
            patches: (N, C_in, P, P), each already mixed with its scale weights.
            scale_weights: (N, S), rows summing to one.

        Returns:
            Logits (N, classes, P', P') over the patches' whole windows.
        """
        return self._run_network(patches, scale_weights)[0]

    def blank(self, device: torch.device | str = "cpu") -> torch.Tensor:
        """What the network takes for one pass, (1, C_in, h, w), all zero: to measure what that needs."""
        patch = torch.zeros(1, self.in_channels, self.scales.patch_size, self.scales.patch_size, device=device)
        if not isinstance(self.estimator, Joint):
            return patch
        return self.estimator.joined(patch[:, None].repeat(1, 2, 1, 1, 1), self.scales)

    def _run_network(self, patches: torch.Tensor, scale_weights: torch.Tensor) -> list[torch.Tensor]:
        """The network's logits, and in training those of its auxiliary head where it has one."""
        if self.scale_embedding is not None:
            patches = self.scale_embedding(patches, scale_weights)
        patches = cast_for(self.network, patches)
        if patches.device.type == "cuda":
            # As the weights are, see `ready_to_predict`.
            patches = patches.contiguous(memory_format=torch.channels_last)
        per_scale = isinstance(self.network, NetworkPerScale)
        output = self.network(patches, scale_weights) if per_scale else self.network(patches)
        return [middle_of(self._checked(head, len(patches)), self.scales.middle_share) for head in heads_of(output)]

    def over_supports(self, output: torch.Tensor, weights: torch.Tensor, side: int) -> torch.Tensor:
        """Read the network's output over the supports around the patches' centres.

        Args:
            output: (N, classes, P', P'), from `predict_windows`.
            weights: (N, S) of the patches' scales; they say at which fields of view the output is read.
            side: side of the support in level-0 pixels, at most the narrowest field of view in use.

        Returns:
            Logits (N, classes, side, side).
        """
        if self.alignment == "paper" or isinstance(self.estimator, Joint):
            return resize_logits(output, side)
        views = self.scales.fields_of_view
        if weights.device.type == "cuda" and not weights.requires_grad:
            return weighted_crops(output, weights, views, side, self._reading.scales)
        return chosen_crops(output, weights, views, side)

    def _checked(self, output: object, count: int) -> torch.Tensor:
        shape = tuple(output.shape) if isinstance(output, torch.Tensor) else type(output).__name__
        if not isinstance(output, torch.Tensor) or output.dim() != 4 or len(output) != count:
            raise NetworkError(
                f"the network must return logits ({count}, classes, h, w), got {shape}; "
                f"wrap it in a module that returns the tensor of logits only"
            )
        # Under autocast the output has half precision, which would round the positions it is read at, by pixels.
        return output.float() if output.dtype in (torch.float16, torch.bfloat16) else output

    def _mixture(self, aligned: torch.Tensor, log_weights: torch.Tensor) -> torch.Tensor:
        """The mean prediction (N, C, h, w) of S aligned ones (N, S, C, h, w), by the logarithms of weights (N, S)."""
        return self.membership.mixed(aligned, log_weights[:, :, None, None, None], over=1, dim=2)

    def _whole_logits(self, image: torch.Tensor) -> torch.Tensor:
        """Scale logits (B, S, h, w) of whole images."""
        grid = CellGrid(Size(*image.shape[-2:]), self.overview_downsample)
        shape = (len(image), len(self.scales), grid.rows, grid.cols)

        def policy() -> torch.Tensor:
            return self.scale_logits(extraction.overview_of(image, self.overview_downsample, self.policy.margin))

        return self.estimator.logits(Asked(shape, policy)).to(image.device)

    def _logits_at(self, logits: torch.Tensor, targets: extraction.Windows, image: torch.Tensor) -> torch.Tensor:
        """Scale logits (B n, S) at the cells below the centres of n targets, of images (B, C_in, H, W)."""
        rows, cols = (
            (start + targets.side // 2).clamp(max=length - 1) // self.overview_downsample
            for start, length in zip((targets.top, targets.left), image.shape[-2:], strict=True)
        )
        return logits[:, :, rows, cols].transpose(1, 2).flatten(0, 1)

    def _patches(self, image: torch.Tensor, targets: extraction.Windows) -> torch.Tensor:
        """Patches (n, S', C_in, P, P) of one image (C_in, H, W) for n targets."""
        return torch.stack([self._cut(image, targets, scale) for scale in self._reading.scales], dim=1)

    def _cut(self, image: torch.Tensor, around: extraction.Windows, scale: int) -> torch.Tensor:
        """Patches (n, C_in, P, P) around the centres of windows of one image (C_in, H, W)."""
        parts = []
        for view, pixels in self.scales.parts(scale):
            windows, level = around.centred(view), extraction.region_downsample(view / pixels)
            parts.append(
                extraction.extract_patches(
                    extraction.region_of(image, extraction.region_window(windows, level), level), windows, pixels
                )
            )
        return assembled(parts, self.scales)
