"""The tree tells the story: few files of one idea each, under names that say what they are, behind few doors."""

import ast
import importlib
import json
import re
import statistics
import textwrap
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
SOURCES = {path.relative_to(ROOT / "src/foveate").as_posix(): path for path in (ROOT / "src/foveate").rglob("*.py")}
DOORS = sorted(name.removesuffix("/__init__.py") for name in SOURCES if name.count("/") == 1 and "__init__" in name)
# What only the command line and tests import: nothing of theirs is for others.
CLOSED = {"api", "cli", "paper", "viewer"}
# Names that said nothing of what was in a file.
GONE = {
    "display", "freed_memory", "live_memory", "looked_at", "options", "patient_source", "slots", "tiled_tiff",
    "working",
}  # fmt: skip


def lines(path):
    return len(path.read_text(encoding="utf-8").splitlines())


def test_there_are_few_files_and_most_of_them_hold_an_idea():
    assert len(SOURCES) <= 156
    assert statistics.median(map(lines, SOURCES.values())) > 100


def test_no_file_is_longer_than_a_reader_keeps_in_mind():
    assert not {name for name, path in SOURCES.items() if lines(path) > 320}


def test_names_that_said_nothing_do_not_come_back():
    assert not {path.stem.lstrip("_") for path in SOURCES.values()} & GONE


def test_what_begins_with_an_underscore_is_imported_beside_it_only():
    for name, path in SOURCES.items():
        for module in imported(path.read_text(encoding="utf-8")):
            folder, _, last = module.removeprefix("foveate.").replace(".", "/").rpartition("/")
            assert not last.startswith("_") or folder == name.rpartition("/")[0], f"{name} imports {module}"


@pytest.mark.parametrize("door", [door for door in DOORS if door not in CLOSED])
def test_a_package_gives_the_names_it_lists(door):
    package = importlib.import_module(f"foveate.{door}")
    assert len(set(package.__all__)) == len(package.__all__)
    assert set(dir(package)) <= set(package.__all__) <= {name for name in package.__all__ if hasattr(package, name)}
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = package.nothing


def test_documentation_imports_from_the_doors_only():
    found = {(path.name, module) for path in pages() for code in blocks(path) for module in imported(code)}
    assert len(found) > 30
    assert not {(page, module) for page, module in found if module.count(".") > 1}


def test_the_page_on_the_tree_names_what_is_there():
    text = (ROOT / "docs/concepts/architecture.md").read_text(encoding="utf-8")
    named = {name.removesuffix(".py") for name in re.findall(r"`((?:[a-z_]+/)+[a-z_]+(?:\.py)?)`", text)}
    found = {name.removesuffix(".py") for name in SOURCES} | {name.rpartition("/")[0] for name in SOURCES}
    assert len(named) > 20
    assert not {name for name in named if not name.startswith(("tests/", "docs/", "src/"))} - found


def pages():
    yield from (ROOT / "README.md", ROOT / "CONTRIBUTING.md")
    for folder in ("docs", "examples"):
        yield from (path for path in (ROOT / folder).rglob("*") if path.suffix in (".md", ".py", ".ipynb"))


def blocks(path):
    """The Python of a page, a script or a notebook."""
    text = path.read_text(encoding="utf-8")
    if path.suffix == ".py":
        return [text]
    if path.suffix == ".ipynb":
        cells = [cell["source"] for cell in json.loads(text)["cells"] if cell["cell_type"] == "code"]
        return ["".join(line for line in cell if not line.lstrip().startswith(("%", "!"))) for cell in cells]
    fenced = re.findall(r"^( *)```python[^\n]*\n(.*?)^\1```", text, re.MULTILINE | re.DOTALL)
    return [textwrap.dedent(code) for _, code in fenced]


def imported(code):
    """The modules of Foveate that code imports from."""
    for node in ast.walk(ast.parse(code)):
        if isinstance(node, ast.ImportFrom) and (node.module or "").partition(".")[0] == "foveate":
            yield node.module
        elif isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if alias.name.partition(".")[0] == "foveate")
