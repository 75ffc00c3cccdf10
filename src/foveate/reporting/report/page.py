"""From what a report says to one HTML file that needs nothing else."""

from __future__ import annotations

import html
import math
import os
from dataclasses import dataclass
from datetime import datetime
from functools import cache
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined

from foveate.files import write_text
from foveate.reporting.tables import percent
from foveate.version import __version__


@dataclass(frozen=True, slots=True)
class Report:
    """A report that was written.

    Attributes:
        path: the HTML file.
        figures: PNG, SVG and GIF files of what is in it.
        missing: what it could not show, and why.
    """

    path: Path
    figures: tuple[Path, ...]
    missing: tuple[str, ...]

    def _repr_html_(self) -> str:
        """The page within a notebook."""
        page = html.escape(self.path.read_text(encoding="utf-8"))
        return f'<iframe srcdoc="{page}" title="report" style="width:100%;height:80vh;border:1px solid #8888"></iframe>'


def write_page(path: Path, template: str, values: dict[str, Any], *, overwrite: bool) -> None:
    """Fill a template and write it in one step.

    Args:
        path: of the page.
        template: file in templates/.
        values: what it asks for; text is escaped.
        overwrite: replace an existing page.

    Raises:
        OutputExistsError: when the page exists and `overwrite` is false.
    """
    now = datetime.now().astimezone()
    text = _environment().get_template(template).render(**values, version=__version__, made=f"{now:%Y-%m-%d %H:%M %Z}")
    write_text(path, text, overwrite=overwrite)


def link_to(target: Path, page: Path) -> str | None:
    """The address of a file relative to a page; None where there is no such file."""
    return Path(os.path.relpath(target, page.parent)).as_posix() if target.exists() else None


@cache
def _environment() -> Environment:
    environment = Environment(
        loader=PackageLoader("foveate.reporting.report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"percent": percent, "number": number}
    return environment


def number(value: float | None, digits: int = 0) -> str:
    """A number with thin spaces between thousands; a dash for what is not known."""
    if value is None or math.isnan(value):
        return "-"
    return f"{value:,.{digits}f}".replace(",", "\u202f")
