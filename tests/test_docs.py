"""The code, tests and files that the documentation names exist, and its links lead to existing headings."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PLACES = "in the code", "where"  # columns
TESTS = "test"
PAGES = [*sorted((ROOT / "docs").rglob("*.md")), ROOT / "README.md", ROOT / "CONTRIBUTING.md"]


def rows(page):
    """Yield each row of the tables of a page as {column: cell}."""
    columns = None
    for line in (ROOT / "docs" / page).read_text().splitlines():
        if not line.startswith("|"):
            columns = None
            continue
        cells = [cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]]
        if columns is None:
            columns = cells
        elif set(line) - set("|- "):
            yield dict(zip(columns, cells, strict=True))


def named(cell):
    """Return the files and the functions or classes that a cell names: `file`, `file::function` or `function`."""
    names = re.findall(r"`([^`]+)`", cell)
    parts = [part for name in names for part in name.split("::")]
    files = [part for part in parts if part.endswith((".py", ".yml"))]
    return files, [part.rstrip("…") for part in parts if part not in files]


def files_of(name):
    """Return the files that match a path or pattern under dreamer/ or configs/."""
    folder = ROOT if name.startswith("configs/") else ROOT / "dreamer"
    return list(folder.glob(name))


def defines(text, name):
    """Return whether Python source defines a function, method or class (`Class.method`: both)."""
    return all(re.search(rf"^ *(def|class) {part}\b", text, flags=re.M) for part in name.split("."))


@pytest.mark.parametrize("page", ["fidelity.md", "versions.md"])
def test_every_place_in_the_code_exists(page):
    checked = 0
    for row in rows(page):
        for column in PLACES:
            files, names = named(row.get(column, ""))
            assert all(files_of(name) for name in files), row
            text = "\n".join(path.read_text() for name in files for path in files_of(name))
            assert all(defines(text, name) for name in names), row
            checked += len(names)
    assert checked > 25


def test_every_test_named_in_fidelity_md_exists():
    tests = {path.name: path.read_text() for path in (ROOT / "tests").rglob("test_*.py")}
    checked = 0
    for row in rows("fidelity.md"):
        files, names = named(row.get(TESTS, ""))
        assert all(name in tests for name in files), row
        text = "\n".join(tests[name] for name in files)
        assert all(f"def {name}" in text for name in names), row
        checked += len(names)
    assert checked > 25


@pytest.mark.parametrize("page", PAGES)
def test_every_file_that_a_page_names_exists(page):
    names = re.findall(r"`([\w.-]+/[\w./-]+\.(?:py|yml|json|csv|md))`", page.read_text())
    assert not [name for name in names if not (ROOT / name).exists() and not (ROOT / "dreamer" / name).exists()]


@pytest.mark.parametrize("page", PAGES)
def test_every_link_leads_somewhere(page):
    text = page.read_text()
    for target in re.findall(r"\]\(([^)\s]+)\)", text):
        path, _, anchor = target.partition("#")
        if "://" in target:
            continue
        linked = (page.parent / path).resolve() if path else page
        assert linked.exists(), target
        if anchor:
            assert anchor in anchors(linked), target


def anchors(page):
    """Return the anchors of a page's headings, as GitHub makes them."""
    headings = re.findall(r"^#+ (.+)$", page.read_text(), flags=re.M)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}
