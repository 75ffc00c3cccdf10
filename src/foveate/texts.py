"""Reading texts that anything may have happened to: within a size, and every fault named with its file and a remedy."""

import hashlib
import html
import json
import math
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from foveate.errors import ConfigError, FoveateError, reason_of

MOST_BYTES = 16 << 20
_SEAL = "sha256"
_LAYOUT = r'^ "'  # a line of `sealed`: indented by one
# Aliases make a text of a few lines as large as they like.
_MOST_NODES = 200_000
_DEEPEST = 100


def read_text(path: Path, kind: type[FoveateError], remedy: str, most: int = MOST_BYTES) -> str:
    """The text of a file in UTF-8, with or without a byte order mark.

    Args:
        path: the file.
        kind: of the error.
        remedy: what to do when it cannot be read.
        most: bytes it may have.

    Raises:
        FoveateError: of this kind, when it cannot be read, is larger, or is not in UTF-8.
    """
    try:
        size = path.stat().st_size
        data = path.read_bytes() if size <= most else b""
    except OSError as error:
        raise kind(f"{path} cannot be read: {error.strerror or error}; {remedy}") from None
    if size > most:
        raise kind(f"{path} has {size / 2**20:.0f} MiB, and such a file has at most {most / 2**20:.0f} MiB; {remedy}")
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise kind(f"{path} is not in UTF-8{_guessed(data)} (byte {error.start}): save it as UTF-8; {remedy}") from None
    if "\0" in text:
        raise kind(f"{path} holds zero bytes, as text in UTF-16 does: save it as UTF-8; {remedy}")
    return text


def listed(texts: Iterable[str], name: str) -> list[str]:
    """The texts, which must not be a single one, whose letters would be taken for texts.

    Raises:
        ConfigError: when they are a text or a mapping.
    """
    if isinstance(texts, str | Mapping):
        example = [texts] if isinstance(texts, str) else [f"{key}={value}" for key, value in texts.items()]
        raise ConfigError(f"{name} is a list, such as {name}={example}; got {texts!r}")
    return list(texts)


def read_json(path: Path, kind: type[FoveateError], remedy: str, most: int = MOST_BYTES) -> Any:
    """The value in a JSON file; where it has a checksum (`sealed`), that is compared and taken out.

    Raises:
        FoveateError: of this kind, as `read_text`, when it is not JSON or its checksum is wrong.
    """
    return _opened(_parsed(path, read_text(path, kind, remedy, most), kind, remedy), path, kind, remedy)


def read_tree(path: Path, kind: type[FoveateError], remedy: str, *, ours: bool = False) -> dict[str, Any]:
    """As `read_json`, of a file that holds an object.

    Args:
        path: the file.
        kind: of the error.
        remedy: what to do when it cannot be read.
        ours: whether `sealed` made it; then its layout tells that it has a checksum, whatever else was changed. Files
            of earlier versions have another layout, and none.

    Raises:
        FoveateError: of this kind, also when it holds something else.
    """
    text = read_text(path, kind, remedy)
    tree = _parsed(path, text, kind, remedy)
    if not isinstance(tree, dict):
        raise kind(f"{path} holds a {type(tree).__name__} where an object is expected; {remedy}")
    must = ours and re.search(_LAYOUT, text, re.MULTILINE) is not None
    return dict(_opened(tree, path, kind, remedy, must=must))


def _parsed(path: Path, text: str, kind: type[FoveateError], remedy: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise kind(f"{path} is damaged or not JSON ({reason_of(error)}); {remedy}") from None


def _opened(tree: Any, path: Path, kind: type[FoveateError], remedy: str, *, must: bool = False) -> Any:
    """A tree without its checksum, which is compared where it has one or must have one."""
    if isinstance(tree, dict) and (must or _is_sealed(tree)) and tree.pop(_SEAL, None) != _digest(tree):
        raise kind(f"{path} was changed or is damaged: its checksum is wrong; {remedy}")
    return tree


def sealed(tree: dict[str, Any]) -> str:
    """The JSON text of an object with a checksum over all of it, which `read_json` compares."""
    plain = json.loads(json.dumps(tree))
    return json.dumps({**plain, _SEAL: _digest(plain)}, indent=1) + "\n"


def load_yaml(text: str, source: str, kind: type[FoveateError]) -> Any:
    """The plain values in a YAML text.

    Raises:
        FoveateError: of this kind, when it is no YAML, or its aliases make it larger or deeper than any real file.
    """
    try:
        return yaml.load(text, _BoundedLoader)
    except yaml.MarkedYAMLError as error:
        place = f", line {error.problem_mark.line + 1}" if error.problem_mark else ""
        raise kind(f"{source} is not valid YAML{place}: {error.problem or error.context}") from None
    except (yaml.YAMLError, ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        raise kind(f"{source} is not valid YAML: {reason_of(error)}") from None


class _BoundedLoader(yaml.SafeLoader):
    def get_single_node(self) -> yaml.Node | None:
        node = super().get_single_node()
        if node is not None:
            self._count(node, {}, 0)
        return node

    def _count(self, node: yaml.Node, known: dict[int, int], depth: int) -> int:
        """Values that a node and those it refers to make, each reference counted; a node within itself never ends."""
        if id(node) in known:
            return known[id(node)]
        if depth > _DEEPEST:
            raise yaml.YAMLError(f"it is nested more than {_DEEPEST} deep, or refers to itself")
        parts: list[yaml.Node] = []
        if isinstance(node, yaml.MappingNode):
            parts = [part for pair in node.value for part in pair]
        elif isinstance(node, yaml.SequenceNode):
            parts = node.value
        total = 1 + sum(self._count(part, known, depth + 1) for part in parts)
        if total > _MOST_NODES:
            raise yaml.YAMLError(f"with its aliases it has more than {_MOST_NODES} values")
        known[id(node)] = total
        return total


def _is_sealed(tree: dict[str, Any]) -> bool:
    """Also where the key of the checksum is what was changed."""
    return _SEAL in tree or any(
        isinstance(value, str) and re.fullmatch("[0-9a-f]{64}", value) for value in tree.values()
    )


def _digest(tree: Any) -> str:
    return hashlib.sha256(json.dumps(tree, sort_keys=True).encode()).hexdigest()


def _guessed(data: bytes) -> str:
    """What a text may be instead."""
    if data[:2] in (b"\xff\xfe", b"\xfe\xff"):
        return ", but in UTF-16"
    return ", but perhaps in the encoding of Excel on Windows (cp1252)" if b"\0" not in data else ""


def counted(number: int, noun: str) -> str:
    """A number of things: 1 image, 3 images."""
    return f"{number} {noun}{'' if number == 1 else 's'}"


def percent(value: float | None) -> str:
    """A share in percent with one decimal; a dash for what is not known."""
    return "-" if value is None or math.isnan(value) else f"{100 * value:.1f}"


def size_text(count: float) -> str:
    """Bytes for people."""
    return f"{count / 2**30:.1f} GiB" if count >= 2**30 else f"{count / 2**20:.0f} MiB"


def table_html(header: Sequence[str], rows: Iterable[Sequence[str]], caption: str = "") -> str:
    """A table as HTML; all text is escaped.

    Args:
        header: of the columns.
        rows: their texts.
        caption: above the table.
    """
    head = "".join(f"<th>{html.escape(text)}</th>" for text in header)
    lines = ("".join(f"<td>{html.escape(text)}</td>" for text in row) for row in rows)
    body = "".join(f"<tr>{line}</tr>" for line in lines)
    above = f'<caption style="text-align:left">{html.escape(caption)}</caption>' if caption else ""
    return f"<table>{above}<thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"


# Both ways to write the micro sign are in use: U+00B5 and the Greek letter U+03BC.
METRES = {
    "nm": 1e-9, "um": 1e-6, "\N{MICRO SIGN}m": 1e-6, "\N{GREEK SMALL LETTER MU}m": 1e-6,
    "mm": 1e-3, "cm": 1e-2, "m": 1.0, "km": 1e3,
}  # fmt: skip
# From how many of a unit on it is used: "0.3 m" and "0.5 um" are what people write beside images.
_SHOWN = {"km": 1, "m": 0.1, "mm": 1, "um": 0.01}
_LENGTH = re.compile(r"\s*((?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][-+]?[0-9]+)?)\s*([^\W\d]+)\s*")


def metres(text: str) -> float:
    """The length that a text such as "0.5 um" means, in metres.

    Args:
        text: a positive number and one of nm, um (or µm), mm, cm, m, km.

    Raises:
        ConfigError: when it is anything else.
    """
    found = _LENGTH.fullmatch(text)
    unit = METRES.get(found[2]) if found else None
    value = float(found[1]) if found else 0.0
    if unit is None or not 0 < value < float("inf"):
        raise ConfigError(
            f"{text!r} is not a length; give a positive number with a unit (nm, um, mm, cm, m, km): '0.5 um'"
        )
    return value * unit


def length(value: float) -> str:
    """Metres as a short text that `metres` reads back, to nine digits: "0.5 um"."""
    unit = next((name for name, least in _SHOWN.items() if value >= least * METRES[name]), "nm")
    return f"{value / METRES[unit]:.9g} {unit}"
