import pytest

from foveate.errors import GeometryError
from foveate.geometry import Window
from foveate.patches import ScaleSet


@pytest.mark.parametrize(
    ("patch", "views", "message"),
    [
        (64, (), "empty"),
        (64, (128, 64), r"ascending.*try \[64, 128\]"),
        (64, (64, 64), "ascending"),
        (64, (32, 64), "smaller than the patch of 64"),
        (0, (64,), "at least 1"),
    ],
)
def test_impossible_fields_of_view_are_refused(patch, views, message):
    with pytest.raises(GeometryError, match=message):
        ScaleSet(patch, views)


def test_windows_share_the_centre_of_the_target():
    scales = ScaleSet(64, [64, 96, 256])
    target = scales.window(Window(100, 200, 16, 16), 0)
    assert target == Window(76, 176, 64, 64)
    assert scales.window(target, 2) == scales.window(Window(100, 200, 16, 16), 2) == Window(-20, 80, 256, 256)
    assert [scales.downsample(s) for s in range(len(scales))] == [1, 1.5, 4]
