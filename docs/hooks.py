"""Hooks of the documentation's build: tutorials without their data say so, and tutorials' links lead to pages."""

from __future__ import annotations

import os
import posixpath
import re
from pathlib import Path

from mkdocs.exceptions import PluginError

# Below $FOVEATE_DATA; what is not named here needs nothing that pip does not bring.
NEEDS = {
    "tutorials/slides.py": "slides/CMU-1-Small-Region.svs",
    "tutorials/photographs.py": "hrf/images/05_h.jpg",
}
NOTE = """<div class="admonition note"><p class="admonition-title">Shown without results</p>
<p>This page was built where <code>$FOVEATE_DATA/{}</code> is missing, so its code was not run.</p></div>
"""


def missing(page: str) -> str | None:
    """The file that a page needs and that is not there."""
    need = NEEDS.get(page)
    root = os.environ.get("FOVEATE_DATA")
    return need if need and not (root and (Path(root) / need).exists()) else None


def on_config(config):
    """Tell the plugin which pages not to run, and the pages not to ask for a progress bar that nobody will see."""
    os.environ.setdefault("PYTHONWARNINGS", "ignore:IProgress not found")
    if root := os.environ.get("FOVEATE_DATA"):
        os.environ["FOVEATE_DATA"] = str(Path(root).resolve())  # pages run in their own folder
    config.plugins["mkdocs-jupyter"].config["execute_ignore"] += [page for page in NEEDS if missing(page)]
    return config


def on_page_content(html, page, config, files):
    """Say what is missing above the page; turn links between sources into links between pages."""
    if page.file.src_uri.endswith((".py", ".ipynb")):
        html = re.sub(r'href="([^":#]+\.(?:md|py))(#[^"]*)?"', lambda match: link(match, page, files), html)
    need = missing(page.file.src_uri)
    return html if need is None else NOTE.format(need) + html


def link(match, page, files):
    """The link to a page for the one to its source, which notebooks keep as it is written."""
    target, anchor = match[1], match[2] or ""
    if "/" not in target:
        return match[0]  # the notebook's own source, beside it
    file = files.get_file_from_path(posixpath.normpath(posixpath.join(posixpath.dirname(page.file.src_uri), target)))
    if file is None:
        raise PluginError(f"{page.file.src_uri} links to {target}, which is not there")
    return f'href="{file.url_relative_to(page.file)}{anchor}"'
