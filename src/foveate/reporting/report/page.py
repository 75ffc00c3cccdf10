"""One HTML file that needs nothing else, and its figures: SVG and PNG files, inline in the page."""

import base64
import html
import io
import math
import os
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup
from PIL import Image

from foveate.files import write_text, written
from foveate.package import __version__
from foveate.package import matplotlib as mpl
from foveate.reporting.panels import Picture, plain_text
from foveate.texts import percent

INK, MUTED, GRID, PAPER = "#1c2128", "#59636e", "#e3e6ea", "#fefefe"
# After the palette of Okabe and Ito, which colour-blind readers can tell apart, without what is too pale on white.
SERIES = ("#0072b2", "#d55e00", "#00845f", "#b5588f", "#6b7280")
# In the page these follow its light or dark scheme; the files keep the colours.
_PAGE_COLORS = {
    INK: "currentColor", MUTED: "var(--muted)", GRID: "var(--line)", PAPER: "none",
    "#e5e5e5": "var(--line)",  # the grid of a comparison's figure
    **{color: f"var(--series-{i})" for i, color in enumerate(SERIES)},
}  # fmt: skip
_STYLE: dict[Any, Any] = {
    "svg.fonttype": "none",  # text stays text: it can be searched, and takes the page's font
    "figure.facecolor": PAPER, "axes.facecolor": PAPER,
    "font.size": 10, "text.color": INK, "axes.labelcolor": MUTED, "axes.edgecolor": GRID, "axes.titlesize": 11,
    "axes.titlelocation": "left", "axes.titlecolor": INK, "xtick.color": MUTED, "ytick.color": MUTED,
    "axes.grid": True, "grid.color": GRID, "grid.linewidth": 0.8, "axes.axisbelow": True, "axes.spines.top": False,
    "axes.spines.right": False, "legend.frameon": False, "legend.fontsize": 10, "lines.linewidth": 1.8,
}  # fmt: skip
# Of the file, what does not belong into a page: its size in points, addresses, rules for all of a page, fonts.
_INLINE = (
    (r"<metadata>.*?</metadata>", ""),
    (r"<style.*?</style>", ""),
    (r'\s(?:xmlns(?::\w+)?|version)="[^"]*"', ""),
    (r'\s(?:width|height)="[^"]*pt"', ""),
    (r'\bid="', 'id="NAME-'),
    (r"url\(#", "url(#NAME-"),
    (r'xlink:href="#', 'href="#NAME-'),
    (r"font-family: [^;\"]*; ", ""),
)
_JPEG_QUALITY = 86
_LARGEST_SCALE = 1.4  # pixels of a page for a point of a figure, beyond which its text would look too large


class Chart(NamedTuple):
    """A figure of lines and areas."""

    title: str  # what it shows
    alt: str  # what there is to see, in a sentence, for readers who cannot
    svg: Markup  # to put into a page


class FigureFolder:
    """Where the figures of a report are kept as files; these follow from the run, so earlier ones are replaced."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.files: list[Path] = []

    def chart(self, name: str, title: str, alt: str, axes: Any) -> Chart:
        """Keep the figure of these axes as SVG and PNG, and make the part of a page from it."""
        # A name in a script that matplotlib's font lacks: the page has it right, the PNG shows boxes.
        with mpl.rc_context({"svg.hashsalt": name}):
            with self._opened(f"{name}.svg") as partial:
                axes.figure.savefig(partial, metadata={"Date": None})
            with self._opened(f"{name}.png") as partial:
                axes.figure.savefig(partial, dpi=160)
        return Chart(title, alt, inline_svg((self.path / f"{name}.svg").read_text(encoding="utf-8"), name))

    def picture(self, name: str, pixels: Picture, *, photo: bool = False) -> str:
        """Keep a picture (h, w, 3) as PNG; the data URI of it, of a photo as JPEG, which is smaller."""
        image = Image.fromarray(pixels)
        png = self.keep(f"{name}.png", encoded(image, "PNG", optimize=True))
        if photo:
            return data_uri(encoded(image, "JPEG", quality=_JPEG_QUALITY), "image/jpeg")
        return data_uri(png, "image/png")

    def keep(self, name: str, content: bytes) -> bytes:
        """Keep a file of any kind; its content."""
        with self._opened(name) as partial:
            partial.write_bytes(content)
        return content

    @contextmanager
    def _opened(self, name: str) -> Iterator[Path]:
        path = self.path / name
        with written(path, overwrite=True) as partial:
            yield partial
        self.files.append(path)


@contextmanager
def style() -> Iterator[None]:
    """Draw and save in the style of the report within the block."""
    with mpl.rc_context(_STYLE), plain_text():
        yield


def short(name: str) -> str:
    """A name that fits beside an axis; its end counts too, where names differ."""
    return name if len(name) <= 18 else f"{name[:11]}…{name[-6:]}"


def legend_above(axes: Any) -> None:
    """The legend above the plot, where it hides no curve, in as many columns as the longest label leaves room for."""
    longest = max(map(len, axes.get_legend_handles_labels()[1]))
    room = axes.figure.get_size_inches()[0] / (0.45 + 0.085 * longest)
    axes.figure.legend(
        loc="outside upper left", ncols=max(1, min(4, int(room))), handlelength=1.2, handletextpad=0.4,
        columnspacing=1.2, borderaxespad=0.2,
    )  # fmt: skip


def view_colors(views: Sequence[int]) -> list[str]:
    """The colour of every field of view: that of the foveation map, whose colours span narrowest to widest."""
    low, high = views[0], views[-1]
    shares = [(view - low) / max(1, high - low) for view in views]
    return [mpl.colors.to_hex(mpl.colormaps["viridis"](share)) for share in shares]


def value_picture(values: Any, low: float, high: float) -> Picture:
    """Values (h, w) from `low` to `high` as colours (h, w, 3); NaN is grey."""
    table = mpl.colormaps["viridis"].with_extremes(bad=(0.5, 0.5, 0.5))
    scaled = np.clip((np.ma.masked_invalid(values) - low) / max(high - low, 1e-9), 0, 1)
    return table(scaled, bytes=True)[..., :3]


def data_uri(content: bytes, kind: str) -> str:
    """Bytes of a media type as an address that holds them."""
    return f"data:{kind};base64,{base64.b64encode(content).decode()}"


def inline_svg(text: str, name: str) -> Markup:
    """An SVG file as a part of an HTML page: names of its own, no addresses, the page's fonts and colours."""
    text = text[text.index("<svg") :]
    for pattern, replacement in _INLINE:
        text = re.sub(pattern, replacement.replace("NAME", name), text, flags=re.DOTALL)
    for color, meaning in _PAGE_COLORS.items():
        text = text.replace(color, meaning)
    width = float(re.search(r'viewBox="0 0 ([\d.]+)', text)[1])  # type: ignore[index]
    text = text.replace("<svg", f'<svg style="max-width: {_LARGEST_SCALE * width:.0f}px"', 1)
    return Markup(text)  # matplotlib escapes every text in it


def encoded(image: Image.Image, kind: str, **options: Any) -> bytes:
    """A picture as the bytes of a file of this kind."""
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


FOLDER, PAGE, FIGURES = "report", "index.html", "figures"


def page_of(run: Path) -> Path:
    """Where the report of a run, or of a comparison, is by default."""
    return run / FOLDER / PAGE


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
    """Fill a template and write it in one step."""
    now = datetime.now().astimezone()
    text = _TEMPLATES.get_template(template).render(**values, version=__version__, made=f"{now:%Y-%m-%d %H:%M %Z}")
    write_text(path, text, overwrite=overwrite)


def link_to(target: Path, page: Path) -> str | None:
    """The address of a file relative to a page; None where there is no such file."""
    return Path(os.path.relpath(target, page.parent)).as_posix() if target.exists() else None


def number(value: float | None, digits: int = 0) -> str:
    """A number with thin spaces between thousands; a dash for what is not known."""
    if value is None or math.isnan(value):
        return "-"
    return f"{value:,.{digits}f}".replace(",", "\u202f")


_TEMPLATES = Environment(
    loader=PackageLoader("foveate.reporting.report"), autoescape=True, undefined=StrictUndefined, trim_blocks=True,
    lstrip_blocks=True,
)  # fmt: skip
_TEMPLATES.filters |= {"percent": percent, "number": number, "data_uri": data_uri}
