"""The glossary names one home for each term, and the home is there."""

import re

from conftest import ROOT

GLOSSARY = (ROOT / "GLOSSARY.md").read_text("utf-8")
ROWS = re.findall(r"^\| ([^|]+) \| ([^|]+) \| `([\w/]+)` \|$", GLOSSARY, re.M)


def test_each_term_once() -> None:
    terms = [term for term, _, _ in ROWS]
    assert len(terms) >= 40 and len(terms) == len(set(terms))
    assert len(ROWS) == GLOSSARY.count("\n| ") - GLOSSARY.count("\n| term |"), "a row is not read"


def test_each_home_is_a_module() -> None:
    lost = {term: home for term, _, home in ROWS if not (ROOT / f"asr_nb/{home}.py").exists()}
    assert not lost
