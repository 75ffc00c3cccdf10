"""The page: one HTML file whose scripts are separate modules when served, and one bundle when exported."""

from __future__ import annotations

import json
import re
from importlib import resources
from typing import Any

STATIC = resources.files("foveate.viewer") / "static"
# In the order in which they need each other.
MODULES = (
    "format", "dom", "manifest", "colours", "tiles", "probe", "state", "link", "scalebar", "windows", "pane", "panes",
    "panel", "readout", "keys", "main",
)  # fmt: skip
_IMPORT = re.compile(r'^import (\{[^}]*\}) from "\./(\w+)\.js";$', re.MULTILINE)
_EXPORT = re.compile(r"^export ((?:async )?(?:function|class|const) (\w+))", re.MULTILINE)


def page(tree: dict[str, Any], *, bundled: bool = False) -> str:
    """The HTML, with the manifest inside, so that it needs no request of its own.

    Args:
        tree: from `manifest`.
        bundled: refer to `viewer.js`, as written by `bundle`, which also runs where modules are not loaded: a browser
            refuses them for pages opened from a disk.
    """
    html = (STATIC / "index.html").read_text(encoding="utf-8")
    script = '<script defer src="static/viewer.js">' if bundled else '<script type="module" src="static/js/main.js">'
    # Inside a script element only "<" could end it or open a comment.
    data = json.dumps(tree, ensure_ascii=False, allow_nan=False).replace("<", "\\u003c")
    return html.replace("<!--MANIFEST-->", data).replace("<!--MAIN-->", f"{script}</script>")


def bundle() -> str:
    """All modules as one classic script: each a function that returns what it exports."""
    return '"use strict";\n(() => {\nconst modules = {};\n' + "\n".join(map(_wrapped, MODULES)) + "\n})();\n"


def _wrapped(name: str) -> str:
    code = module_source(name)
    exported = ", ".join(found[2] for found in _EXPORT.finditer(code))
    body = _EXPORT.sub(r"\1", _IMPORT.sub(r"const \1 = modules.\2;", code))
    return f"modules.{name} = (() => {{\n{body}\nreturn {{ {exported} }};\n}})();"


def module_source(name: str) -> str:
    """The text of a module."""
    return (STATIC / "js" / f"{name}.js").read_text(encoding="utf-8")
