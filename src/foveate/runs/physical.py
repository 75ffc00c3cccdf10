"""Fields of view in physical units: resolved to pixels before a run's configuration is checked, and saved so."""

from __future__ import annotations

from foveate.config_base import ConfigTree
from foveate.foveation.config import in_pixels, is_physical, pixel_size_of


def resolve_lengths(values: ConfigTree) -> ConfigTree:
    """A copy of a run's configuration whose fields of view are pixels of `data.pixel_size`.

    Without `data.pixel_size` it becomes the narrowest field of view over the patch size. Unchanged where no field of
    view is a length.

    Raises:
        ConfigError: when pixels and lengths are mixed, or one is no length.
    """
    foveation, data = values.get("foveation"), values.get("data")
    if not isinstance(foveation, dict) or not isinstance(data, dict):
        return values
    views, patch = foveation.get("fields_of_view"), foveation.get("patch_size")
    if not isinstance(views, list | tuple) or not any(map(is_physical, views)) or not isinstance(patch, int):
        return values
    if patch < 1:
        return values  # which is then found to be wrong
    size = data.get("pixel_size") or pixel_size_of(views, patch)
    pixels = list(in_pixels(views, str(size)))
    return {**values, "foveation": {**foveation, "fields_of_view": pixels}, "data": {**data, "pixel_size": size}}
