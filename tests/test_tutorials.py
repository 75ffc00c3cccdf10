"""The tutorials run as scripts and notebooks, and the site's pages, tutorials and links fit together."""

import ast
import json
import os
import re
import runpy
import sys
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parent.parent
DOCS = ROOT / "docs"
TUTORIALS = sorted((DOCS / "tutorials").glob("*.py"))
NOTEBOOKS = sorted((DOCS / "tutorials").glob("*.ipynb"))
NEEDS = {"slides": "slides/CMU-1-Small-Region.svs", "photographs": "hrf/images/05_h.jpg"}


class SiteLoader(yaml.SafeLoader):
    """Reads mkdocs.yml: its tag for environment variables is left as it is."""


SiteLoader.add_constructor("!ENV", lambda loader, node: loader.construct_sequence(node))


def site():
    return yaml.load((ROOT / "mkdocs.yml").read_text(encoding="utf-8"), SiteLoader)


def pages_of(nav):
    for entry in nav:
        for value in entry.values() if isinstance(entry, dict) else [entry]:
            yield from pages_of(value) if isinstance(value, list) else [value]


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:Use `@` matmul")  # of affine, about rasterio
@pytest.mark.parametrize("tutorial", TUTORIALS, ids=lambda path: path.stem)
def test_it_runs(tutorial, tmp_path, monkeypatch):
    need = NEEDS.get(tutorial.stem)
    if need and not (Path(os.environ.get("FOVEATE_DATA", "")) / need).exists():
        pytest.skip(f"$FOVEATE_DATA/{need} is missing")
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr("tempfile.tempdir", None)
    monkeypatch.setattr(sys, "argv", [str(tutorial)])
    names = runpy.run_path(str(tutorial))
    assert names["result"]["failed_blocks"] == []
    assert names["result"]._repr_html_().count("<img") == 1
    # Better than one class everywhere: the steps that are shown do learn something.
    assert names["evaluation"].scores.miou > 1 / len(names["config"].data.classes)


def cells(notebook, kind):
    tree = json.loads(notebook.read_text(encoding="utf-8"))
    return ["".join(cell["source"]) for cell in tree["cells"] if cell["cell_type"] == kind]


@pytest.mark.slow
@pytest.mark.parametrize("notebook", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_runs_from_top_to_bottom(notebook, tmp_path, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    names = {}
    for number, cell in enumerate(cells(notebook, "code")):
        exec(compile(cell, f"{notebook.name}, code cell {number}", "exec"), names)
    assert names["result"]["failed_blocks"] == []
    assert names["evaluation"].scores.miou > 0.5
    assert (names["classes"] == names["labels"]).mean() > 0.8


@pytest.mark.parametrize("notebook", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_is_clean_and_imports_only_what_readers_have(notebook):
    tree = json.loads(notebook.read_text(encoding="utf-8"))
    assert all(not cell.get("outputs") and cell.get("execution_count") is None for cell in tree["cells"])
    for cell in cells(notebook, "code"):
        for node in ast.walk(ast.parse(cell)):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            names += [node.module] if isinstance(node, ast.ImportFrom) else []
            allowed = {"foveate", "foveate.demo", "numpy", "pathlib", "tempfile", "PIL"}
            assert set(names) <= allowed
    for target in re.findall(r"\]\(([^)#]+?)(?:#[^)]*)?\)", " ".join(cells(notebook, "markdown")).replace("\n", " ")):
        assert target.startswith("https://") or (notebook.parent / target).exists(), target


def test_every_page_is_in_the_navigation_once():
    listed = list(pages_of(site()["nav"]))
    there = [page.relative_to(DOCS).as_posix() for page in [*DOCS.rglob("*.md"), *TUTORIALS, *NOTEBOOKS]]
    assert sorted(listed) == sorted(there)


@pytest.mark.parametrize("tutorial", TUTORIALS, ids=lambda path: path.stem)
def test_its_links_lead_somewhere(tutorial):
    text = tutorial.read_text(encoding="utf-8").replace("\n# ", " ")
    for target in re.findall(r"\]\(([^)#]+?)(?:#[^)]*)?\)", text):
        assert target.startswith("https://") or (tutorial.parent / target).exists(), target


def test_what_the_build_looks_for_is_what_the_tutorials_need():
    hooks = (DOCS / "hooks.py").read_text(encoding="utf-8")
    for name, need in NEEDS.items():
        assert f'"tutorials/{name}.py": "{need}"' in hooks
