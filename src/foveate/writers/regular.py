"""Regular outlines, as buildings have them: sides along two directions at right angles where the border allows."""

from __future__ import annotations

from typing import Any

import numpy as np
import shapely
from numpy.typing import NDArray
from shapely.affinity import rotate

# A side this far from both directions, in degrees, stays oblique.
_OBLIQUE = 25.0
# A regular outline that differs from the region by more than this share of its area is not taken.
_MOST_CHANGED = 0.15
_LEAST_TOLERANCE = 1.5  # pixels: the steps of a border that is drawn in pixels

_Line = tuple[NDArray[np.float64], NDArray[np.float64]]  # a point and a direction


def regularised(polygon: shapely.Polygon, tolerance: float = 0.0) -> shapely.Polygon:
    """The polygon with right angles where its border is near them; what has none comes back simplified.

    Sides within 25 degrees of the polygon's main direction, or of that at a right angle to it, are brought to it, and
    those that follow each other become one. The others stay as they are. The main direction is that in which most of
    the border runs.

    Args:
        polygon: in pixels.
        tolerance: farthest that a border may move before its sides are turned, pixels; 1.5 at least.
    """
    tolerance = max(tolerance, _LEAST_TOLERANCE)
    coarse = polygon.simplify(tolerance, preserve_topology=True)
    angle, centre = _main_direction(coarse), polygon.centroid
    turned = rotate(coarse, -angle, origin=centre)
    rings = [_squared(ring, tolerance) for ring in (turned.exterior, *turned.interiors)]
    if any(ring is None for ring in rings):
        return coarse
    regular = rotate(shapely.Polygon(rings[0], rings[1:]), angle, origin=centre)
    changed = regular.symmetric_difference(polygon).area if regular.is_valid else np.inf
    return regular if changed <= _MOST_CHANGED * polygon.area else coarse


def _main_direction(polygon: shapely.Polygon) -> float:
    """Degrees from 0 to 90 in which most of the border runs: the mean of the sides' angles, four times, by length."""
    steps = np.diff(np.asarray(polygon.exterior.coords)[:, :2], axis=0)
    lengths, angles = np.hypot(*steps.T), np.arctan2(steps[:, 1], steps[:, 0])
    # Twice the weight of long sides: short ones are steps of pixels.
    mean = np.angle((lengths**2 * np.exp(4j * angles)).sum()) / 4
    return float(np.degrees(mean) % 90)


def _squared(ring: Any, tolerance: float) -> list[tuple[float, float]] | None:
    """The corners of a ring whose sides near the axes are brought to them; None where too few are left."""
    points = np.asarray(ring.coords)[:-1, :2]
    sides = np.roll(points, -1, axis=0) - points
    kinds = [_kind(side) for side in sides]
    # What is as short as the steps of pixels is no side: a corner that they cut, or a step in a side.
    least = [(3 if kind == "oblique" else 2) * tolerance for kind in kinds]
    kept = [i for i, side in enumerate(sides) if np.hypot(*side) >= least[i]]
    groups = _runs(kept, kinds)
    if len(groups) < 3:
        return None
    lines = [_line(points, sides, group, kinds[group[0]]) for group in groups]
    corners = []
    for k, (line, group) in enumerate(zip(lines, groups, strict=True)):
        met = _crossing(lines[k - 1], line)
        corner = points[group[0]] if met is None else met
        corners.append((float(corner[0]), float(corner[1])))
    return corners


def _kind(side: NDArray[np.float64]) -> str:
    angle = np.degrees(np.arctan2(abs(side[1]), abs(side[0])))
    return "level" if angle <= _OBLIQUE else "upright" if angle >= 90 - _OBLIQUE else "oblique"


def _runs(kept: list[int], kinds: list[str]) -> list[list[int]]:
    """Sides that follow each other in one direction, as one; around the ring."""
    groups: list[list[int]] = []
    for i in kept:
        if groups and kinds[i] != "oblique" and kinds[groups[-1][-1]] == kinds[i]:
            groups[-1].append(i)
        else:
            groups.append([i])
    if len(groups) > 1 and kinds[groups[0][0]] == kinds[groups[-1][-1]] != "oblique":
        groups[0] = groups.pop() + groups[0]
    return groups


def _line(points: NDArray[np.float64], sides: NDArray[np.float64], group: list[int], kind: str) -> _Line:
    if kind == "oblique":
        return points[group[0]], sides[group[0]]
    middles = points[group] + sides[group] / 2
    mean = np.average(middles, axis=0, weights=np.hypot(*sides[group].T))
    return mean, np.array([1.0, 0.0] if kind == "level" else [0.0, 1.0])


def _crossing(first: _Line, second: _Line) -> NDArray[np.float64] | None:
    """Where two lines meet; None where they are all but parallel."""
    (p, u), (q, v) = first, second
    cross = u[0] * v[1] - u[1] * v[0]
    if abs(cross) < 0.2 * np.hypot(*u) * np.hypot(*v):
        return None
    across = ((q - p)[0] * v[1] - (q - p)[1] * v[0]) / cross
    crossing: NDArray[np.float64] = p + across * u
    return crossing
