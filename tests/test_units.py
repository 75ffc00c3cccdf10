import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from foveate.errors import ConfigError
from foveate.texts import length, metres


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
