"""A network for each scale: `CascadeNetwork`, where closer looks get what the wider one saw, and `NetworkPerScale`."""

import copy
import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from foveate.errors import NetworkError
from foveate.membership import Exclusive, Membership
from foveate.networks.parts import DeepSupervision, EncoderDecoder, cast_for, evaluating, heads_of, in_three_parts
from foveate.types import Entrance, Handed

_LEAST_STRIDE = 8
_FORMS = "encoder, decoder and segmentation head of segmentation_models_pytorch, or an encoder with a c1 or ppm head"


class Context(NamedTuple):
    """What wider looks handed on, and where in their windows N closer ones lie.

    Attributes:
        seen: (N, D, m, m) over the whole windows of the wider looks.
        corners: (N, 2) top and left of the closer windows in the wider ones, as shares of the latter's side; float.
        share: side of a closer window as a share of the wider one's.
        kept: (N,) 1 where a closer look gets its context, 0 where it stands alone; all get it when None.
    """

    seen: Tensor
    corners: Tensor
    share: float
    kept: Tensor | None = None

    def over(self, height: int, width: int) -> Tensor:
        """The context (N, D, height, width) over the closer windows.

        A value is read at the centre of each pixel, bilinearly between the centres of the wide map, those just outside
        the closer window included: that is the halo. Where several of the map's pixels lie in one, their mean is taken;
        beyond the wide window the outermost value goes on.
        """
        factors = [
            max(1, math.ceil(self.share * side / count))
            for side, count in zip(self.seen.shape[-2:], (height, width), strict=True)
        ]
        grid = self._centres(height * factors[0], width * factors[1])
        found = nn.functional.grid_sample(
            self.seen.float(), grid, mode="bilinear", padding_mode="border", align_corners=False
        )
        found = nn.functional.avg_pool2d(found, factors) if max(factors) > 1 else found
        return found if self.kept is None else found * self.kept.view(-1, 1, 1, 1).to(found.dtype)

    def _centres(self, height: int, width: int) -> Tensor:
        """Where values are read, (N, height, width, 2) as (x, y) in [-1, 1] over the wide windows."""
        corners = self.corners.to(self.seen.device, torch.float32)
        rows, cols = (
            corners[:, axis, None] + (torch.arange(count, device=corners.device).float() + 0.5) * (self.share / count)
            for axis, count in ((0, height), (1, width))
        )
        shape = (corners.shape[0], height, width)  # `len` would make it a constant of an exported network
        return torch.stack([cols[:, None, :].expand(shape), rows[:, :, None].expand(shape)], dim=-1) * 2 - 1


class Seen(NamedTuple):
    """What a look makes of N patches.

    Attributes:
        heads: logits (N, classes, P', P'), and in training those of auxiliary heads; unchecked.
        handed: (N, D, m, m) for closer looks, over the same windows.
    """

    heads: list[Any]
    handed: Tensor


class CascadeNetwork(nn.Module):
    """Passes each patch through the network of its look, with the context of the wider one.

    Context enters the encoder's features at strides of 8 and more (the coarsest where there are none), the input or the
    logits, by convolutions of 1 x 1 that start at zero: at first a closer look is what it would be alone.

    Args:
        network: any module (N, C_in, P, P) -> logits (N, classes, P', P').
        looks: how many there are; look 0 is the closest.
        in_channels: C_in.
        patch_size: P.
        share: one set of weights for all looks, but for normalisation, whose statistics differ; else a copy for each.
        entrance: where context enters.
        gain: factor on the context where it enters.
        handed: what a look hands on; of a network without the form of an encoder and decoder, probabilities only.
        membership: how probabilities are read off logits.

    Raises:
        NetworkError: when context is to enter features, or a map is to be handed on, that the network does not have;
            when it does not return logits.
    """

    def __init__(  # noqa: PLR0913 - the choices of a cascade
        self,
        network: nn.Module,
        looks: int,
        *,
        in_channels: int,
        patch_size: int,
        share: bool = True,
        entrance: Entrance = "auto",
        handed: Handed = "both",
        gain: float = 1.0,
        membership: Membership = Exclusive(),  # noqa: B008 - immutable
    ) -> None:
        super().__init__()
        self._membership = membership
        has_parts = _has_parts(network)
        if not has_parts and (entrance == "features" or handed == "map"):
            raise NetworkError(
                f"{type(network).__name__} has no features that context could enter, and no map; this needs {_FORMS}. "
                "Use context: input and handed: probabilities (or remove both)"
            )
        self._handed: Handed = handed if has_parts else "probabilities"
        self._finest = max(1, patch_size // 2)
        self.networks = nn.ModuleList(_copies(network, looks, share))
        self._place: Entrance = ("features" if has_parts else "input") if entrance == "auto" else entrance
        places, channels = self._probe(torch.zeros(1, in_channels, patch_size, patch_size))
        count = 1 if share else looks - 1
        self.entrances = nn.ModuleList(_Entrance(channels, places, gain) for _ in range(count if looks > 1 else 0))

    @property
    def looks(self) -> int:
        """How many there are."""
        return len(self.networks)

    def forward(self, patches: Tensor, look: int, context: Context | None = None) -> Seen:
        """Patches (N, C_in, P, P) of one look, with what the wider one saw around them."""
        network: Any = self.networks[look]
        patches = cast_for(network, patches)
        (patches,) = self._entered("input", [patches], look, context)
        if _has_parts(network):
            features = self._entered("features", network.encoder(patches), look, context)
            seen, output = _decoded(network, features, patches)
        else:
            seen, output = None, network(patches)
        main, *auxiliary = heads_of(output)
        (main,) = self._entered("logits", [main], look, context)
        return Seen([main, *auxiliary], self._handed_on(seen, main))

    def _entered(self, place: Entrance, values: Sequence[Any], look: int, context: Context | None) -> list[Any]:
        """Features, or what else there is at a place, with the context if it enters there."""
        if context is None or place != self._place:
            return list(values)
        entered: list[Tensor] = self.entrances[min(look, len(self.entrances) - 1)](values, context)
        return entered

    def _handed_on(self, seen: Tensor | None, logits: object) -> Tensor:
        """What closer looks get, at the resolution of the map, or at half of the patch's where that is finer."""
        if not isinstance(logits, Tensor) or logits.dim() != 4:
            raise NetworkError(f"a look must return logits (N, classes, h, w), got {type(logits).__name__}")
        parts = [] if seen is None or self._handed == "probabilities" else [seen.float() / _size(seen.float())]
        if self._handed != "map":
            parts.append(self._membership.probabilities(logits.float()))
        side = min(self._finest, *parts[0].shape[-2:])
        return torch.cat([_shrunk(part, side) for part in parts], dim=1)

    @torch.no_grad()
    def _probe(self, patch: Tensor) -> tuple[list[tuple[int, int]], int]:
        """Place and channels of each of the features that context enters, and how many channels it has."""
        network: Any = self.networks[0]
        patch = cast_for(network, patch.to(next(network.parameters(), patch).device))
        with evaluating(network):
            try:
                heads, handed = self(patch, 0)
                features = list(network.encoder(patch)) if self._place == "features" else []
            except NetworkError:
                raise
            except Exception as error:  # any network may be given
                raise NetworkError(
                    f"the network does not take a patch {tuple(patch.shape)}: {error}. in_channels says how many "
                    "channels it takes"
                ) from error
        if self._place == "features":
            # The head of an `EncoderDecoder` sees no other than its last features.
            last = [(len(features) - 1, features[-1].shape[1])]
            places = last if isinstance(network, EncoderDecoder) else _coarse(features, patch.shape[-1])
        else:
            values: Any = {"input": [patch], "logits": heads}.get(self._place)
            places = [] if values is None else [(0, values[0].shape[1])]
        return places, handed.shape[1]


class _Entrance(nn.Module):
    """Adds context to some of a list of features, measured by how large they are.

    Features of encoders differ in size by a factor of ten and more: unmeasured, context would drown in some.

    Args:
        channels: of the context.
        places: index and channels of each of the features.
        gain: factor on the context.
    """

    def __init__(self, channels: int, places: Sequence[tuple[int, int]], gain: float = 1.0) -> None:
        super().__init__()
        self._gain = gain
        self.convolutions = nn.ModuleDict({str(i): nn.Conv2d(channels, width, 1, bias=False) for i, width in places})
        for weight in self.parameters():
            nn.init.zeros_(weight)

    def forward(self, features: Sequence[Tensor], context: Context) -> list[Tensor]:
        """The features with the context at their resolutions."""
        result = list(features)
        for i, convolution in self.convolutions.items():
            one = result[int(i)]
            over = cast_for(convolution, context.over(*one.shape[-2:]))
            added = self._gain * convolution(over) * _size(one.detach().float())
            result[int(i)] = one + added.to(one.dtype)
        return result


def _size(values: Tensor) -> Tensor:
    """Root mean square (N, 1, 1, 1) of each of N maps (N, D, h, w), never zero."""
    return values.square().mean(dim=(1, 2, 3), keepdim=True).clamp(min=1e-12).sqrt()


def _has_parts(network: nn.Module) -> bool:
    """Whether a network is an encoder and a decoder that pass features on as we know it."""
    return isinstance(network, EncoderDecoder) or in_three_parts(network)


def _decoded(network: Any, features: list[Tensor], patches: Tensor) -> tuple[Tensor, Tensor | DeepSupervision]:
    """The decoder's map (N, D, h, w), and what the network returns."""
    if isinstance(network, EncoderDecoder):
        return network.decode(features, patches)
    seen = network.decoder(features)
    return seen, network.segmentation_head(seen)


def _coarse(features: Sequence[Tensor], side: int) -> list[tuple[int, int]]:
    """Index and channels of the features at a stride of 8 and more, or of the coarsest."""
    known = [(i, one) for i, one in enumerate(features) if one.dim() == 4 and one.shape[1]]
    coarse = [(i, one) for i, one in known if side / one.shape[-1] >= _LEAST_STRIDE] or known[-1:]
    return [(i, one.shape[1]) for i, one in coarse]


def _shrunk(values: Tensor, side: int) -> Tensor:
    """Means (N, D, side, side) of (N, D, h, w)."""
    height, width = values.shape[-2:]
    if (height, width) == (side, side):
        return values
    if height % side == 0 and width % side == 0:
        return nn.functional.avg_pool2d(values, (height // side, width // side))
    return nn.functional.interpolate(values, size=(side, side), mode="bilinear", align_corners=False, antialias=True)


def _copies(network: nn.Module, looks: int, share: bool) -> list[nn.Module]:
    """The network for each look; shared ones have all parameters but those of normalisation in common."""
    copies = [network, *(copy.deepcopy(network) for _ in range(looks - 1))]
    for other in copies[1:] if share else ():
        _tie(network, other)
    return copies


def _tie(network: nn.Module, other: nn.Module) -> None:
    for one, same in zip(network.modules(), other.modules(), strict=True):
        # A look's statistics are its own; so are what they are turned into.
        if not isinstance(one, nn.modules.batchnorm._NormBase):
            for name, parameter in one.named_parameters(recurse=False):
                setattr(same, name, parameter)


class NetworkPerScale(nn.Module):
    """Passes each patch through the network of its scale.

    Args:
        networks: S modules (N, C_in, P, P) -> (N, classes, P', P'), in the order of the scales.
    """

    def __init__(self, networks: Sequence[nn.Module]) -> None:
        super().__init__()
        self.networks = nn.ModuleList(networks)

    def forward(self, patches: Tensor, scale_weights: Tensor) -> Tensor:
        """Logits (N, classes, P', P') of patches (N, C_in, P, P) by their one-hot scale weights (N, S)."""
        scales = scale_weights.argmax(dim=-1)
        present = torch.unique(scales).tolist()
        if len(present) == 1:
            only: Tensor = self.networks[present[0]](patches)
            return only
        parts = {s: self.networks[s](patches[scales == s]) for s in present}
        first = next(iter(parts.values()))
        logits: Tensor = first.new_empty(len(patches), *first.shape[1:])
        for scale, part in parts.items():
            logits[scales == scale] = part
        return logits
