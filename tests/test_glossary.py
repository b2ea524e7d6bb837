"""What the pages GLOSSARY.md and CONTRIBUTING.md name is there."""

import re
from pathlib import Path

from conftest import ROOT

GLOSSARY = (ROOT / "GLOSSARY.md").read_text("utf-8")
ROWS = re.findall(r"^\| ([^|]+) \| ([^|]+) \| `([\w/]+)` \|$", GLOSSARY, re.M)
CONTRIBUTING = (ROOT / "CONTRIBUTING.md").read_text("utf-8")
NOTEBOOK = r"`((?:\d_|lab/|[a-z]+/)[\w/]*)`"  # a path under nbs/, in back quotes
TOUCHED = CONTRIBUTING.partition("## What a new one touches")[2].partition("\n## ")[0]
CHANGES = re.findall(r"^\| ([^|]+) \| (\d) \| ([^|]+) \|$", TOUCHED, re.M)


def source(home: str) -> str:
    """The source of a module of the package; empty if there is none."""
    path = ROOT / "asr_nb" / f"{home}.py"
    return path.read_text("utf-8") if path.exists() else ""


def notebook(place: str) -> Path:
    """The notebook or folder that a path in CONTRIBUTING.md means."""
    path = ROOT / "nbs" / place
    return path if path.is_dir() else path.with_suffix(".ipynb")


def test_each_term_once() -> None:
    terms = [term for term, _, _ in ROWS]
    assert len(terms) >= 40 and len(terms) == len(set(terms))
    assert len(ROWS) == GLOSSARY.count("\n| ") - GLOSSARY.count("\n| term |"), "a row is not read"


def test_each_home_is_a_module() -> None:
    lost = {term: home for term, _, home in ROWS if not source(home)}
    assert not lost


def test_each_name_in_a_meaning_is_in_its_home() -> None:
    named = [(name, home) for _, text, home in ROWS for name in re.findall(r"`([A-Z]\w+)`", text)]
    assert len(named) >= 3
    assert not [(name, home) for name, home in named if f"class {name}" not in source(home)]


def test_each_path_in_contributing_leads_somewhere() -> None:
    places = re.findall(NOTEBOOK, CONTRIBUTING)
    inside = [place for place in places if place[0].isdigit() or place.startswith("lab/")]
    assert len(inside) > 30
    assert not [place for place in inside if not notebook(place).exists()]


def test_each_change_touches_the_files_that_are_counted() -> None:
    assert len(CHANGES) == TOUCHED.count("\n| ") - 1, "a row is not read"
    for change, count, text in CHANGES:
        parts = text.split("; ")
        assert len(parts) == int(count), change
        for part in parts:
            for name in re.findall(r"\(`(\w+)`\)", part):
                (place,) = re.findall(NOTEBOOK, part)
                defined = re.search(rf'"(def |class )?{name}\b', notebook(place).read_text("utf-8"))
                assert defined, f"{place} does not define {name}"
