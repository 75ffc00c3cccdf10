"""Texts that anything may have happened to are read, or refused in one line that names the file."""

import json
import math
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from foveate.config_base import read_yaml, with_overrides
from foveate.errors import ConfigError, DatasetError
from foveate.texts import length, load_yaml, metres, read_json, read_text, sealed

BOMB = "a: &a [x, x, x, x, x, x, x, x, x]\n" + "\n".join(
    f"{name}: &{name} [{', '.join([f'*{before}'] * 9)}]" for before, name in zip("abcdefgh", "bcdefghi", strict=True)
)
MERGES = "a: &a {k: 1}\n" + "\n".join(
    f"{name}: &{name} {{<<: [{', '.join([f'*{before}'] * 9)}]}}"
    for before, name in zip("abcdefgh", "bcdefghi", strict=True)
)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (
            "größe".encode("cp1252"),
            r"not in UTF-8, but perhaps in the encoding of Excel on Windows \(cp1252\) \(byte 2\)",
        ),
        ("größe".encode("utf-16"), "not in UTF-8, but in UTF-16"),
        (b"\x80\x00\x01", r"not in UTF-8 \(byte 0\)"),
        (b"x" * 101, "has 0 MiB, and such a file has at most"),
    ],
)
def test_what_is_no_text_is_said(tmp_path, data, message):
    path = tmp_path / "a.csv"
    path.write_bytes(data)
    with pytest.raises(DatasetError, match=f"a.csv.*{message}.*mend it"):
        read_text(path, DatasetError, "mend it", 100)


def test_a_byte_order_mark_is_no_letter(tmp_path):
    (tmp_path / "a.csv").write_text("größe", encoding="utf-8-sig")
    assert read_text(tmp_path / "a.csv", DatasetError, "") == "größe"


@pytest.mark.parametrize("text", ["", "{", "[" * 100_000, "1" * 10_000, "{'a': 1}"])
def test_what_is_no_json_is_said(tmp_path, text):
    (tmp_path / "a.json").write_text(text)
    with pytest.raises(ConfigError, match=r"a\.json is damaged or not JSON .*; mend it"):
        read_json(tmp_path / "a.json", ConfigError, "mend it")


def test_a_folder_in_place_of_a_file_is_said(tmp_path):
    with pytest.raises(ConfigError, match="cannot be read: Is a directory"):
        read_json(tmp_path, ConfigError, "mend it")


def test_a_changed_letter_of_a_sealed_tree_is_noticed(tmp_path):
    path, tree = tmp_path / "a.json", {"numbers": [1.25, 1e-30, 12], "of": {"größe": None}, "name": "a\ud800"}
    text = sealed(tree)
    path.write_text(text)
    assert read_json(path, ConfigError, "") == tree
    path.write_text(json.dumps(json.loads(text)))
    assert read_json(path, ConfigError, "") == tree, "however it is laid out"
    rng = random.Random(0)
    for _ in range(300):
        place = rng.randrange(len(text))
        path.write_text(text[:place] + rng.choice('0123456789ae,." ]}') + text[place + 1 :])
        try:
            found = read_json(path, ConfigError, "make it anew")
        except ConfigError as error:
            assert str(error).startswith(str(path))
        else:
            assert {key: found[key] for key in tree} == tree


@pytest.mark.parametrize("text", [BOMB, MERGES], ids=["aliases", "merges"])
def test_a_text_that_grows_without_bounds_is_refused(text):
    with pytest.raises(ConfigError, match=r"a\.yaml is not valid YAML: with its aliases it has more than"):
        load_yaml(text, "a.yaml", ConfigError)


def test_few_aliases_are_fine():
    assert load_yaml("a: &a {k: 1}\nb: [*a, *a]\nc: {<<: *a, l: 2}", "", ConfigError)["c"] == {"k": 1, "l": 2}


@pytest.mark.parametrize(
    "text",
    [
        "[" * 5000,
        "a: &a [*a]",
        "a: [1, 2",
        "a: 0000-00-00",
        "a: !!python/object:os.system 1",
        "? {}\n: 1",
    ],
)
def test_what_is_no_yaml_is_said(tmp_path, text):
    (tmp_path / "a.yaml").write_text(text)
    with pytest.raises(ConfigError, match=r"a\.yaml is not valid YAML"):
        read_yaml(tmp_path / "a.yaml")


def test_an_override_that_is_no_yaml_is_said():
    with pytest.raises(ConfigError, match=r"the value of inference\.outputs is not valid YAML"):
        with_overrides({}, ["inference.outputs=[a]b[]"])


@pytest.mark.parametrize(
    ("text", "expected"),
    [("0.5 um", 5e-7), ("128µm", 128e-6), ("3 μm", 3e-6), ("250 nm", 2.5e-7), ("1e3 mm", 1.0), ("2cm", 0.02),
     (" 10 m ", 10.0), ("1.5 km", 1500.0)],
)  # fmt: skip
def test_lengths(text, expected):
    assert metres(text) == pytest.approx(expected)


@pytest.mark.parametrize("text", ["", "5", "um", "0 um", "-3 um", "1.2.3 um", "1 inch", "1 um 2", "inf m", "1e999 m"])
def test_what_is_no_length(text):
    with pytest.raises(ConfigError, match="is not a length"):
        metres(text)


@given(st.floats(1e-9, 1e6))
def test_there_and_back(value):
    assert math.isclose(metres(length(value)), value, rel_tol=1e-8)


def test_units_are_those_people_use():
    assert [length(value) for value in (5e-7, 0.3, 12.5, 2e-3, 4000.0, 3e-9)] == [
        "0.5 um", "0.3 m", "12.5 m", "2 mm", "4 km", "3 nm",
    ]  # fmt: skip
