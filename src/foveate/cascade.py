"""`CascadeSegmenter`: any segmentation network that looks widely, and closer knowing what the wider look saw."""

from collections.abc import Sequence
from typing import NamedTuple

import torch

from foveate.foveation.estimator import Draw, LocationOutput
from foveate.foveation.estimators import Cascade
from foveate.membership import Exclusive, Membership
from foveate.networks.cascade import CascadeNetwork, Context
from foveate.patches.scales import ScaleSet, resize_logits
from foveate.segmenter import FoveatedSegmenter, Places, Tiles

# A closer look counts so many times as much as the next wider one where both cover a pixel.
CLOSER_COUNTS = 10.0


class LookOutput(NamedTuple):
    """What a look makes of N patches."""

    logits: torch.Tensor  # (N, C, P', P') over the patches' windows, float32
    handed: torch.Tensor  # (N, D, m, m) what closer looks get of it
    # (N, C, P', P') of the further head that a network with deep supervision has in training
    auxiliary: tuple[torch.Tensor, ...] = ()


class CascadeSegmenter(FoveatedSegmenter):
    """Tensor in, tensor out: `logits = segmenter(image)`, widely first, then closer everywhere.

    Args:
        network: any module (N, C_in, P, P) -> logits (N, classes, P', P'), or in training `DeepSupervision`.
        patch_size: P.
        looks: fields of view, widest first, level-0 pixels, each a whole multiple of the next.
        in_channels: number of image bands C_in.
        cascade: how looks share weights and hand context on.
        overview_downsample: level-0 pixels per cell of the maps that a prediction writes.
        tell_scale: tell networks of their own which look they are too, as a shared one always is.
        membership: how classes are read off logits, see `FoveatedSegmenter`.

    Raises:
        ConfigError: when the looks do not nest.
        NetworkError: when the network does not fit, see `CascadeNetwork`.
    """

    def __init__(
        self,
        network: torch.nn.Module,
        patch_size: int,
        looks: Sequence[int],
        *,
        in_channels: int = 3,
        cascade: Cascade | None = None,
        overview_downsample: int = 16,
        tell_scale: bool = False,
        membership: Membership = Exclusive(),  # noqa: B008 - immutable
    ) -> None:
        cascade = cascade or Cascade()
        cascade.check_looks(looks)
        wrapped = CascadeNetwork(
            network,
            len(looks),
            in_channels=in_channels,
            patch_size=patch_size,
            share=cascade.share,
            entrance=cascade.context,
            handed=cascade.handed,
            gain=cascade.gain,
            membership=membership,
        )
        super().__init__(
            wrapped,
            ScaleSet(patch_size, tuple(reversed(looks))),
            in_channels=in_channels,
            overview_downsample=overview_downsample,
            estimator=cascade,
            tell_scale=tell_scale or cascade.share,
            membership=membership,
        )
        self.cascade = cascade

    def forward(self, image: torch.Tensor, draw: Draw = Draw()) -> torch.Tensor:  # noqa: B008 - immutable
        """Segment whole images held in memory: every look everywhere, the closest counting most.

        Args:
            image: (B, C_in, H, W) float, any size.
            draw: randomness of what gets no context, in train mode.

        Returns:
            Logits (B, classes, H, W) of the looks' mean probabilities. For a loss on every look use `look_by_look`.

        Raises:
            GeometryError, NetworkError: see `FoveatedSegmenter`.
        """
        return self._fused(self.look_by_look(image, draw))

    def look_by_look(self, image: torch.Tensor, draw: Draw = Draw()) -> list[torch.Tensor]:  # noqa: B008 - immutable
        """What every look says about whole images, widest first; each but the first with its context.

        Args:
            image: (B, C_in, H, W) float, any size.
            draw: randomness of what gets no context, in train mode.

        Returns:
            Logits (B, classes, H, W) of each look.
        """
        self._check_image(image)
        found: list[torch.Tensor] = []
        handed: torch.Tensor | None = None
        for scale in reversed(range(len(self.scales))):
            tiles = Tiles.over(image, self.scales.fields_of_view[scale])
            patches = torch.cat([self._cut(one, tiles.windows, scale) for one in image])
            context = None if handed is None else self._tiled_context(handed, image, tiles, scale, draw)
            seen = self.look(patches, scale, context)
            found.append(tiles.joined(seen.logits, image))
            handed = seen.handed
        return found

    def look(self, patches: torch.Tensor, scale: int, context: Context | None = None) -> LookOutput:
        """Look once at each of N windows of one field of view.

        Args:
            patches: (N, C_in, P, P) in the network's range.
            scale: index of the field of view, 0 the closest.
            context: what the wider look saw, and where in its windows these lie; None to look alone.
        """
        if self.scale_embedding is not None:
            weights = torch.zeros(1, len(self.scales), device=patches.device)
            weights[0, scale] = 1
            patches = self.scale_embedding(patches, weights)
        seen = self.network(patches, scale, context)
        logits, *auxiliary = (self._checked(head, len(patches)) for head in seen.heads)
        return LookOutput(logits, seen.handed, tuple(auxiliary))

    def forward_places(self, places: Places, draw: Draw = Draw()) -> LocationOutput:  # noqa: B008 - immutable
        """Look at N training locations of M nested windows each, all of one pattern.

        Args:
            places: with M patches each.
            draw: randomness of what gets no context, in train mode.

        Returns:
            With `own_logits` (N, M, C, P', P') over every window, and `logits` (N, C, T, T) over the first closest one:
            its own fused with those of the wider windows around it, as at inference.
        """
        patches, scales, nesting, _ = places
        count, pattern = len(patches), scales[0].tolist()
        seen: dict[int, LookOutput] = {}
        for scale in sorted(set(pattern), reverse=True):
            mine = [j for j, other in enumerate(pattern) if other == scale]
            context = self._nested_context(seen, scales, nesting, mine, draw)
            found = self.look(patches[:, mine].flatten(0, 1), scale, context)
            seen |= {j: _of_place(found, count, k) for k, j in enumerate(mine)}
        own = torch.stack([seen[j].logits for j in range(len(pattern))], dim=1)
        auxiliary = [
            torch.stack(heads, dim=1) for heads in zip(*(seen[j].auxiliary for j in range(len(pattern))), strict=True)
        ]
        logits = own.new_empty(count, 0) if self.training else self._over_closest(seen, pattern, nesting)
        shares = torch.stack([(scales == s).float().mean(dim=1) for s in range(len(self.scales))], dim=1)
        return LocationOutput(logits, torch.zeros_like(shares), shares, own, tuple(auxiliary))

    def predict_windows(self, patches: torch.Tensor, scale_weights: torch.Tensor) -> torch.Tensor:
        """Logits (N, C, P', P') of patches of one field of view each, without context; see `look`."""
        chosen = scale_weights.argmax(dim=-1).tolist()
        alone = {scale: self.look(patches[[c == scale for c in chosen]], scale).logits for scale in set(chosen)}
        rows = {scale: iter(logits) for scale, logits in alone.items()}
        return torch.stack([next(rows[scale]) for scale in chosen])

    def share_of_wider(self, scale: int, wider: int | None = None) -> float:
        """Side of a window as a share of the side of one of a wider look, by default of the next."""
        views = self.scales.fields_of_view
        return views[scale] / views[scale + 1 if wider is None else wider]

    def _kept(self, count: int, device: torch.device, draw: Draw) -> torch.Tensor | None:
        """Which of N closer looks get their context in training; all of them when None."""
        if not self.training or not self.cascade.drop_context:
            return None
        drawn = torch.rand(count, generator=draw.generator, device=device)
        return (drawn >= self.cascade.drop_context).float()

    def _nested_context(
        self, seen: dict[int, LookOutput], scales: torch.Tensor, nesting: torch.Tensor, mine: list[int], draw: Draw
    ) -> Context | None:
        parents = nesting[0, mine, 0].tolist()
        if min(parents) < 0:
            return None
        handed = torch.stack([seen[parent].handed for parent in parents], dim=1).flatten(0, 1)
        scale, wider = int(scales[0, mine[0]]), int(scales[0, parents[0]])
        corners = nesting[:, mine, 1:3].flatten(0, 1).float() / self.scales.fields_of_view[wider]
        kept = self._kept(len(handed), handed.device, draw)
        return Context(handed, corners, self.share_of_wider(scale, wider), kept)

    def _over_closest(self, seen: dict[int, LookOutput], pattern: list[int], nesting: torch.Tensor) -> torch.Tensor:
        """Logits (N, C, T, T) over the first closest window, of all looks around it."""
        place = pattern.index(0)
        target, corner = self.scales.target, torch.zeros_like(nesting[:, place, 1:3])
        looks = [resize_logits(seen[place].logits, target)]
        parent = int(nesting[0, place, 0])
        while parent >= 0:
            corner = corner + nesting[:, place, 1:3]
            view = self.scales.fields_of_view[pattern[parent]]
            around = Context(seen[parent].logits, corner.float() / view, target / view)
            looks.insert(0, around.over(target, target))
            place, parent = parent, int(nesting[0, parent, 0])
        return self._fused(looks)

    def _fused(self, looks: Sequence[torch.Tensor]) -> torch.Tensor:
        """The mean prediction, of logits (..., C, h, w) of looks, widest first; the closest counts most."""
        weights = torch.tensor([CLOSER_COUNTS**k for k in range(len(looks))], device=looks[0].device)
        log_weights = (weights / weights.sum()).log().view(-1, *[1] * looks[0].dim())
        return self.membership.mixed(torch.stack(list(looks)), log_weights, over=0, dim=-3)

    def _tiled_context(
        self, handed: torch.Tensor, image: torch.Tensor, tiles: Tiles, scale: int, draw: Draw
    ) -> Context:
        wider = Tiles.over(image, self.scales.fields_of_view[scale + 1])
        rows, cols = tiles.windows.top // wider.windows.side, tiles.windows.left // wider.windows.side
        inside = torch.stack([tiles.windows.top, tiles.windows.left], dim=1) % wider.windows.side
        each = handed.view(len(image), -1, *handed.shape[1:])[:, rows * wider.cols + cols].flatten(0, 1)
        corners = (inside.float() / wider.windows.side).repeat(len(image), 1)
        return Context(each, corners, self.share_of_wider(scale), self._kept(len(each), each.device, draw))


def _of_place(found: LookOutput, count: int, place: int) -> LookOutput:
    """What belongs to one place of each of N locations, of what was found at their M places (N M, ...)."""
    logits, handed, *auxiliary = (
        values.view(count, -1, *values.shape[1:])[:, place] for values in (*found[:2], *found.auxiliary)
    )
    return LookOutput(logits, handed, tuple(auxiliary))
