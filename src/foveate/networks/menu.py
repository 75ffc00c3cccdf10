"""The networks that there are, by name: encoders and decoders, and which goes with which."""

import difflib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType

import segmentation_models_pytorch as smp
import timm

from foveate.errors import NetworkError

_SHOWN = 12


def canonical(name: str) -> str:
    """Lower case, with `_` for `-`."""
    return name.lower().replace("-", "_")


def library_encoders() -> list[str]:
    """The encoders of segmentation_models_pytorch and of timm, sorted."""
    # Those with timm- are deprecated copies of what timm has itself.
    own = {name for name in smp.encoders.get_encoder_names() if not name.startswith("timm-")}
    return sorted(own | set(timm.list_models()))


def timm_or_smp_name(name: str, known: Iterable[str] = ()) -> str:
    """The name segmentation_models_pytorch knows an encoder by; timm's own have the prefix tu-.

    Args:
        name: as written; a prefix `tu-` or `timm-` asks for timm's where both libraries have it.
        known: further names to offer when there is none of this name.

    Raises:
        NetworkError: when there is none, with the nearest names.
    """
    plain = name.lower().removeprefix("tu-").removeprefix("timm-")
    spellings = dict.fromkeys((plain, plain.replace("-", "_"), plain.replace("_", "-")))
    if plain == name.lower():
        for spelling in spellings:
            if spelling in smp.encoders.get_encoder_names():
                return spelling
    for spelling in spellings:
        if timm.is_model(spelling):
            return f"tu-{spelling}"
    raise NetworkError(f"unknown encoder {name!r}; {nearest(plain, {*known, *library_encoders()})}")


def nearest(name: str, known: Iterable[str]) -> str:
    """What to say about a name that is not known: the nearest ones, or else some."""
    names = sorted(known)
    close = difflib.get_close_matches(name, names, n=3, cutoff=0.5)
    if close:
        return f"did you mean {', '.join(close)}?"
    return f"known are {', '.join(names[:_SHOWN])}{', ...' if len(names) > _SHOWN else ''}"


HEADS = ("c1", "c1_deepsup", "ppm", "ppm_deepsup")
DECODERS = (*HEADS, "upernet")
# Everything that can be an architecture: our heads, and the architectures of segmentation_models_pytorch.
ARCHITECTURES: tuple[str, ...] = (*HEADS, *sorted(smp.MODEL_ARCHITECTURES_MAPPING))
# What the architectures of segmentation_models_pytorch need, a pyramid of halved sizes, dilated encoders have not;
# only UPerNet takes any sizes.
_DILATED: Mapping[str, int] = MappingProxyType({"output_stride": 8})


@dataclass(frozen=True, slots=True)
class EncoderChoice:
    """How an encoder is built, and what it goes with.

    Attributes:
        library_name: what segmentation_models_pytorch calls it (timm's have the prefix tu-), or the name of our own.
        architectures: those it can be used in.
        options: keyword arguments of the library's encoder.
    """

    library_name: str
    architectures: tuple[str, ...] = ARCHITECTURES
    options: Mapping[str, int] = field(default_factory=dict)

    def goes_with(self, architecture: str) -> bool:
        """Whether the two make a network."""
        return architecture in self.architectures


# ResNets have torchvision's stem, for which weights exist, where the original has its own of three convolutions.
ENCODERS: Mapping[str, EncoderChoice] = MappingProxyType(
    {
        "mobilenetv2dilated": EncoderChoice("tu-mobilenetv2_100", DECODERS, _DILATED),
        "resnet18": EncoderChoice("resnet18"),
        "resnet18dilated": EncoderChoice("resnet18", DECODERS, _DILATED),
        "resnet50": EncoderChoice("resnet50"),
        "resnet50dilated": EncoderChoice("resnet50", DECODERS, _DILATED),
        "resnet101": EncoderChoice("resnet101"),
        "resnet101dilated": EncoderChoice("resnet101", DECODERS, _DILATED),
        "resnext101": EncoderChoice("tu-resnext101_32x4d"),
        # Joined to one map: no stage before the last, and no pyramid.
        "hrnetv2": EncoderChoice("hrnetv2", ("c1", "ppm")),
        # At full size: pooling over a grid of it would see next to nothing.
        "u_net": EncoderChoice("u_net", ("c1",)),
        "attention_u_net": EncoderChoice("attention_u_net", ("c1",)),
    }
)
_COMMON = (
    ("fpn", "tf_efficientnet_lite0"),
    ("unet", "resnet34"),
    ("unet", "efficientnet-b0"),
    ("unetplusplus", "resnet34"),
    ("manet", "resnet34"),
    ("linknet", "resnet34"),
    ("pan", "resnet50"),
    ("pspnet", "resnet50"),
    ("deeplabv3plus", "resnet50"),
    ("segformer", "mit_b2"),
    ("upernet", "convnext_tiny"),
)


def encoder_names() -> list[str]:
    """Every encoder there is: the menu's, then the libraries', each sorted."""
    return [*sorted(ENCODERS), *(name for name in library_encoders() if name not in ENCODERS)]


def pairs(architecture: str | None = None, encoder: str | None = None) -> list[tuple[str, str]]:
    """The pairs (architecture, encoder) that go together, encoder by encoder.

    Args:
        architecture: only this one, with the menu's encoders; the original's decoders when None.
        encoder: only this one, with the original's decoders; the menu's encoders when None. When both are None, some
            common pairs of segmentation_models_pytorch follow.

    Raises:
        NetworkError: for an unknown name, or when both are given and do not go together.
    """
    if architecture and encoder:
        find_encoder(encoder, find_architecture(architecture))
    decoders = DECODERS if architecture is None else (find_architecture(architecture),)
    choices = ENCODERS if encoder is None else {encoder: find_encoder(encoder)}
    found = [(decoder, name) for name, choice in choices.items() for decoder in decoders if choice.goes_with(decoder)]
    return found if architecture or encoder else [*found, *_COMMON]


def find_architecture(name: str) -> str:
    """The architecture of this name, case ignored and `-` read as `_`.

    Raises:
        NetworkError: when there is none, with the nearest names.
    """
    if canonical(name) not in ARCHITECTURES:
        raise NetworkError(f"unknown architecture {name!r}; {nearest(canonical(name), ARCHITECTURES)}")
    return canonical(name)


def find_encoder(name: str, architecture: str | None = None) -> EncoderChoice:
    """The encoder of this name, case ignored and `-` read as `_`: of the menu, else of a library.

    Raises:
        NetworkError: when there is none, with the nearest names, or when it does not go with the architecture.
    """
    choice = ENCODERS.get(canonical(name)) or EncoderChoice(timm_or_smp_name(name, known=ENCODERS))
    if architecture is not None and not choice.goes_with(architecture):
        raise NetworkError(
            f"encoder {name!r} does not go with architecture {architecture!r}; "
            f"it goes with {', '.join(choice.architectures)}{_alternative(canonical(name))}"
        )
    return choice


def _alternative(name: str) -> str:
    plain = name.removesuffix("dilated")
    return f"; {plain} goes with all" if plain != name and plain in ENCODERS else ""
