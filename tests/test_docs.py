"""What the pages in docs/ say of the code: the places and the tests that their tables name are there."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PLACES = "in the code", "where"  # columns
TESTS = "held by"
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
    return re.findall(r"`([^`]+)`", cell)


def files_of(name):
    """Return the files that a path under dreamer/ or configs/, with a * perhaps, stands for."""
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
            names = named(row.get(column, ""))
            paths = [name for name in names if name.endswith((".py", ".yml"))]
            missing = [name for name in paths if not files_of(name)]
            text = "\n".join(path.read_text() for name in paths for path in files_of(name))
            missing += [name for name in set(names) - set(paths) if not defines(text, name)]
            assert not missing, row
            checked += len(names)
    assert checked > 50


def test_every_test_exists():
    checked = 0
    for row in rows("fidelity.md"):
        names = named(row.get(TESTS, ""))
        files = {path.name: path.read_text() for path in (ROOT / "tests").rglob("test_*.py")}
        texts = [files[name.partition("::")[0]] for name in names if name.partition("::")[0].endswith(".py")]
        functions = [name.rpartition("::")[2].rstrip("…") for name in names if not name.endswith(".py")]
        missing = [name for name in functions if not any(f"def {name}" in text for text in texts)]
        assert not missing, row
        checked += len(names)
    assert checked > 50


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
