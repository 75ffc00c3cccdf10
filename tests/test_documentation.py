"""Python blocks in the README and the documentation run as they stand; the pages' links and pictures exist."""

import re
import runpy
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]


def name(page: Path) -> str:
    return str(page.relative_to(ROOT))


@pytest.mark.parametrize("page", [p for p in PAGES if "```python" in p.read_text(encoding="utf-8")], ids=name)
def test_code_blocks_run(page):
    for block in re.findall(r"^```python\n(.*?)^```", page.read_text(encoding="utf-8"), flags=re.DOTALL | re.MULTILINE):
        exec(compile(block, name(page), "exec"), {})


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_links_lead_somewhere(page):
    for target in re.findall(r"\]\(([^)#]+?)(?:#[^)]*)?\)", page.read_text(encoding="utf-8")):
        if not target.startswith("http"):
            assert (page.parent / target).exists(), f"{name(page)} links to {target}"


def test_the_page_of_settings_is_current():
    settings = runpy.run_path(str(ROOT / "docs" / "settings.py"))
    page = settings["page"]()
    assert (ROOT / "docs/reference/settings.md").read_text(encoding="utf-8") == page, "run: python docs/settings.py"
    assert settings["count"]() <= 100, "for a new setting remove one that never won, or that nobody changes"
    assert not re.findall(r"^\| `(?!name)\w+` \| [^|]* \|  \|", page, flags=re.MULTILINE), "every setting has a word"


def test_the_readme_is_short():
    assert len((ROOT / "README.md").read_text(encoding="utf-8").splitlines()) <= 130
