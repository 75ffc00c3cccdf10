"""The network on its device: the sizes that fit it, batches of one shape, and how many passes a second it makes."""

import copy
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import chain, product
from queue import SimpleQueue
from typing import Any

import torch
from torch import Tensor
from torch.multiprocessing.reductions import StorageWeakRef
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from foveate.cascade import CascadeSegmenter
from foveate.data.area import Area
from foveate.devices import kernels_divided_by, on_device
from foveate.inference.config import InferenceConfig
from foveate.inference.plan import LookPlan
from foveate.inference.source import PixelSource
from foveate.looks.pyramid import megapixels_of, roots_of
from foveate.networks.cascade import Context
from foveate.segmenter import FoveatedSegmenter

_BATCH, _BLOCK = 16, 2048
# Pixels of a batch on a processor: of more, what one layer hands to the next leaves the caches, and a pass takes up to
# twice as long (docs/decisions/0030-batches-that-fit-the-caches.md).
_BATCH_PIXELS = 2**17
# Of a card: no pass is faster in larger batches than this one, and blocks hold a second of its work.
_LARGEST_BATCH, _LARGE_BLOCK = 64, 4096
_OF_BATCHES, _OF_SUMS = 0.4, 0.2  # shares of its memory


def sized(
    config: InferenceConfig, segmenter: FoveatedSegmenter, device: torch.device, trained_in: str = "32"
) -> InferenceConfig:
    """The configuration with numbers where it says "auto"; they depend on the device and the network alone.

    Args:
        config: of inference.
        segmenter: on the device.
        device: where it runs. On a GPU its whole memory counts, not what is free now, so that a run that is gone on
            with has the same sizes; should they not fit, batches are halved as always.
        trained_in: precision of the training; half precision is chosen only for networks that were trained in it.
    """
    changes: dict[str, int | str] = {}
    if config.precision == "auto":
        able = device.type == "cuda" and torch.cuda.is_bf16_supported()
        changes["precision"] = "bf16" if able and trained_in == "bf16" else "32"
    settled = config.model_copy(update=changes)
    if device.type != "cuda":
        most = _BATCH_PIXELS // segmenter.scales.patch_size**2 if device.type == "cpu" else _BATCH
        sizes = {"batch_size": max(1, min(_BATCH, most)), "block_size": _BLOCK}
    elif config.batch_size and config.block_size:
        sizes = {}
    else:
        total = torch.cuda.get_device_properties(device).total_memory
        sizes = sizes_for(total, *bytes_of_a_patch(settled, segmenter, device))
    changes |= {name: size for name, size in sizes.items() if not getattr(config, name)}
    return config.model_copy(update=changes) if changes else config


def sizes_for(total: int, patch: int, classes: int) -> dict[str, int]:
    """Sizes for a card.

    Args:
        total: bytes of its memory.
        patch: that the network needs for one patch.
        classes: whose sums are kept for a block.
    """
    batch = _LARGEST_BATCH
    while batch > 1 and batch * patch > _OF_BATCHES * total:
        batch //= 2
    sums = 3 * classes * _LARGE_BLOCK**2 * 4  # and as much is kept for later blocks, and made of them
    return {"batch_size": batch, "block_size": _LARGE_BLOCK if sums <= _OF_SUMS * total else _BLOCK}


@torch.inference_mode()
def bytes_of_a_patch(config: InferenceConfig, segmenter: FoveatedSegmenter, device: torch.device) -> tuple[int, int]:
    """Bytes that the network needs for a patch, and how many classes it gives."""
    scales, patch = len(segmenter.scales), segmenter.blank(device)
    weights = torch.eye(scales, device=device)[segmenter.estimator.reads(scales).scales[-1]][None]
    classes = 0

    def work() -> None:
        nonlocal classes
        with torch.autocast(device.type, torch.bfloat16, enabled=config.precision == "bf16"):
            classes = segmenter.predict_windows(patch.clone(), weights).shape[1]

    return peak_bytes(work), classes


@dataclass(frozen=True, slots=True)
class Seen:
    """What the network makes of N passes.

    Attributes:
        logits: (N, C, P', P') over their windows.
        handed: (N, D, m, m) what a cascade's closer looks get of it; None without one.
    """

    logits: Tensor
    handed: Tensor | None = None

    def of(self, rows: int | slice) -> "Seen":
        """What is made of some of the passes, or of one, without the axis N."""
        return self.after(lambda values: values[rows])

    def after(self, work: Callable[[Tensor], Tensor]) -> "Seen":
        """The same after some work on each of the tensors."""
        return Seen(work(self.logits), None if self.handed is None else work(self.handed))

    @property
    def nbytes(self) -> int:
        """Bytes of all."""
        return self.logits.nbytes + (0 if self.handed is None else self.handed.nbytes)


def batches_at_once(device: torch.device) -> int:
    """Batches that are made beside one another: two on a processor of several cores.

    On half of the cores each they are faster than one after the other on all cores, which wait for each other in every
    layer. A GPU takes one after the other without waiting.
    """
    return 2 if device.type == "cpu" and torch.get_num_threads() > 1 else 1


def copies_of(segmenter: FoveatedSegmenter, device: torch.device) -> list[FoveatedSegmenter]:
    """The segmenter, and copies that share its weights, for each of the batches at once.

    A network may keep something between its layers, as hooks do, so none makes two batches at a time.
    """
    shared: dict[int, Any] = {id(one): one for one in chain(segmenter.parameters(), segmenter.buffers())}
    try:
        return [segmenter, *(copy.deepcopy(segmenter, dict(shared)) for _ in range(batches_at_once(device) - 1))]
    except Exception:  # any network may be given, and not all can be copied
        return [segmenter]


class Runner:
    """Runs the network on batches of one shape, in memory that is used again and again.

    Args:
        copies: of the segmenter, see `copies_of`, in eval mode, on the source's device; as many threads may call.
        source: the image.
        config: of inference.
    """

    def __init__(self, copies: Sequence[FoveatedSegmenter], source: PixelSource, config: InferenceConfig) -> None:
        self._source, self._config, self._free = source, config, SimpleQueue[FoveatedSegmenter]()
        for one in copies:
            self._free.put(one)
        self._inputs: list[Tensor] = []  # that nothing refers to any more

    @torch.inference_mode()
    def __call__(
        self, inputs: Sequence[Tensor] | Tensor, scale_weights: Tensor, context: Context | None = None
    ) -> Seen:
        """What the network sees on inputs n x (C_in, P, P) in the file's range, at most a batch.

        The inputs were mixed by scale weights (n, S). Every forward pass has the shape of a whole batch, filled up with
        zeros: kernels are chosen once, and a patch's result does not depend on how many others were left.
        """
        return self.forward(self.filled(inputs), len(inputs), scale_weights, context)

    @torch.inference_mode()
    def forward(self, filled: Tensor, count: int, scale_weights: Tensor, context: Context | None = None) -> Seen:
        """As when called, on what `filled` made of some inputs."""
        segmenter = self._free.get()
        try:
            with torch.autocast(filled.device.type, torch.bfloat16, enabled=self._config.precision == "bf16"):
                if isinstance(segmenter, CascadeSegmenter):
                    seen = self._looked(segmenter, filled, int(scale_weights[0].argmax()), context)
                else:
                    weights = torch.cat([scale_weights, scale_weights[-1:].expand(len(filled) - count, -1)])
                    seen = Seen(self._seen(segmenter, filled, on_device(weights, filled.device)))
        finally:
            self._free.put(segmenter)
        if seen.logits.untyped_storage().data_ptr() != filled.untyped_storage().data_ptr():
            self._inputs.append(filled)  # a network that gives back what it is given keeps that
        return seen.of(slice(count))

    def _looked(self, cascade: CascadeSegmenter, patches: Tensor, scale: int, context: Context | None) -> Seen:
        if context is not None:
            handed, corners = (_filled(values, len(patches)) for values in (context.seen, context.corners))
            context = Context(handed, corners, context.share)
        found = cascade.look(patches, scale, context)
        return Seen(found.logits, found.handed)

    def _seen(self, segmenter: FoveatedSegmenter, patches: Tensor, scale_weights: Tensor) -> Tensor:
        """The network's logits; with `tta`, those of its mean probabilities over mirrored and turned patches."""
        if self._config.tta is None:
            return segmenter.predict_windows(patches, scale_weights)
        membership = segmenter.membership
        turns = (0, 2) if self._config.tta == "flips" else (0, 1, 2, 3)
        total: Tensor | None = None
        for turn, mirrored in product(turns, (False, True)):
            view = torch.rot90(patches.flip(-1) if mirrored else patches, turn, (-2, -1))
            seen = membership.probabilities(segmenter.predict_windows(view, scale_weights).float())
            back = torch.rot90(seen, -turn, (-2, -1))
            back = back.flip(-1) if mirrored else back
            total = back if total is None else total + back
        assert total is not None
        return membership.as_logits(total / self._config.passes_of_a_patch)

    @torch.inference_mode()
    def filled(self, inputs: Sequence[Tensor] | Tensor) -> Tensor:
        """Inputs in the network's range, filled up with zeros to a whole batch."""
        size, first = max(len(inputs), self._config.batch_size), inputs[0]
        shape = (size, *first.shape)
        try:
            result = self._inputs.pop()
        except IndexError:  # asked for first, as several threads may take the last
            result = torch.empty(0)
        if result.shape != shape or result.device != first.device:
            order = torch.contiguous_format if first.device.type == "cpu" else torch.channels_last
            result = torch.empty(shape, device=first.device, memory_format=order)
        if first.device.type != "cpu":
            together = inputs if isinstance(inputs, Tensor) else torch.stack(list(inputs))
            self._source.normalised(together, out=result[: len(inputs)])
        else:  # one after the other, which stay in a processor's cache
            for patch, out in zip(inputs, result, strict=False):
                self._source.normalised(patch, out=out)
        result[len(inputs) :] = 0
        return result


def _filled(values: Tensor, size: int) -> Tensor:
    """Values (n, ...) with zeros up to (size, ...)."""
    return torch.cat([values, values.new_zeros(size - len(values), *values.shape[1:])])


@torch.inference_mode()
def peak_bytes(work: Callable[[], Any]) -> int:
    """Most bytes that tensors made within a call occupy at a time; what kernels use inside is not seen."""
    with _Counting() as counting:
        result = work()
        del result
    return int(counting.most)


class _Counting(TorchDispatchMode):  # type: ignore[no-untyped-call]
    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.most = 0
        self._alive: dict[int, tuple[Any, int]] = {}

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        return False  # else torch loads its compiler to leave this out: a second, and 150 MiB

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        given = {_key(t) for t in tree_leaves((args, kwargs)) if isinstance(t, Tensor)}
        result = func(*args, **(kwargs or {}))
        self._alive = {key: entry for key, entry in self._alive.items() if not entry[0].expired()}
        for tensor in tree_leaves(result):
            if isinstance(tensor, Tensor) and _key(tensor) not in given:
                storage = tensor.untyped_storage()
                self._alive.setdefault(storage._cdata, (StorageWeakRef(storage), storage.nbytes()))  # type: ignore[no-untyped-call]
        self.most = max(self.most, sum(size for _, size in self._alive.values()))
        return result


def _key(tensor: Tensor) -> int:
    return int(tensor.untyped_storage()._cdata)


_SECONDS = 1.0  # of measuring; the least is three batches


def in_passes(
    config: InferenceConfig, segmenter: FoveatedSegmenter, source: PixelSource, area: Area | None = None
) -> InferenceConfig:
    """The configuration with a budget of seconds counted in passes per megapixel; any other is left as it is.

    The seconds are those of the network alone, measured on this device now: reading runs beside it, stitching and
    writing come on top. The number is settled before the run, so what is passed does not depend on the clock any more.

    Args:
        config: of inference.
        segmenter: in eval mode, on the source's device.
        source: the image.
        area: what is looked at; None for everything.
    """
    if not in_seconds(config.budget):
        return config
    passes = float(str(config.budget).removesuffix("s")) * passes_per_second(segmenter, source, config)
    grid = LookPlan.of(config, segmenter.estimator, segmenter.scales).grid(source.size)
    megapixels = megapixels_of(roots_of(grid, area), source.size)
    return config.model_copy(update={"budget": round(passes / max(megapixels, 1e-6), 3)})


def in_seconds(budget: float | str | None) -> bool:
    """Whether a budget is one of seconds."""
    return isinstance(budget, str) and budget.endswith("s")


def passes_per_second(segmenter: FoveatedSegmenter, source: PixelSource, config: InferenceConfig) -> float:
    """Forward passes that the network makes in a second, in batches as at inference; measured for about a second."""
    count, side, scales = config.batch_size, segmenter.scales.patch_size, len(segmenter.scales)
    inputs = torch.zeros(count, len(source.channels), side, side, device=source.device)
    weights = torch.eye(scales)[:1].expand(count, -1)
    copies = copies_of(segmenter, source.device)
    run = Runner(copies, source, config)

    def made(_: object) -> float:
        # Copied back, as a device may still be working when the call returns.
        return run(inputs, weights).logits.sum().item()

    batches, start = -len(copies), 0.0  # the first batches choose kernels
    with kernels_divided_by(len(copies)), ThreadPoolExecutor(len(copies)) as pool:
        while batches < 3 or time.perf_counter() - start < _SECONDS:
            batches += len(list(pool.map(made, copies)))
            start = start or time.perf_counter()
    return batches * count * config.passes_of_a_patch / (time.perf_counter() - start)
