"""A new language costs one module and one entry of the registry: a made-up one is found by all who
need it."""

from pathlib import Path

import numpy as np
import pytest

from asr_nb.checks import BadInput
from asr_nb.evaluation.decoding import Prediction
from asr_nb.evaluation.errors import buckets, classify, has_rule, names_in
from asr_nb.evaluation.scoring import score
from asr_nb.evaluation.summary import headline_rate
from asr_nb.preprocessing.corpus.utterances import Utterance
from asr_nb.preprocessing.text.languages import LANGUAGES, Language, WordRules, find_language
from asr_nb.preprocessing.text.normalisers import for_language, normaliser, normalisers
from asr_nb.preprocessing.numbers.numerals import Numerals
from asr_nb.preprocessing.text.rules import Rules, language
from asr_nb.reports.data_parts import Part
from asr_nb.reports.data_text import character_rows, kind_of, text_rows
from asr_nb.runs.experiment import experiment_from

# The first place: what would be a module of its own.
DIGITS = "lo mi na ro su ta vi we xo ye".split()


def toki(number: int) -> str:
    """A number digit by digit."""
    return " ".join(DIGITS[int(digit)] for digit in str(number))


NUMERALS = Numerals(",", {".": "pa"}, "ne", {"%": "{} cento"}, toki)
SPOKEN = language("tokish", 1, Rules(NUMERALS, same={"dr": "doka"}), (("Dr. 12!", "doka mi na"),))
# The second place: its entry.
TOKISH = Language(
    "qt",
    "Tokish",
    (SPOKEN,),
    toki,
    alphabet="þ",
    word_rules=WordRules(endings=("- k",), articles="ye"),
    other_codes=("qto",),
)


@pytest.fixture
def tokish(monkeypatch: pytest.MonkeyPatch) -> Language:
    for code in (TOKISH.code, *TOKISH.other_codes):
        monkeypatch.setitem(LANGUAGES, code, TOKISH)
    return TOKISH


def part_of(*texts: str, code: str) -> Part:
    rows = tuple(Utterance(str(i), text, code, 2.0) for i, text in enumerate(texts))
    levels = np.tile([-23.0, -8.0, 0.0], (len(rows), 1))
    return Part("made up", "test", rows, levels, levels)


def experiment(code: str) -> dict:
    return {
        "name": "made-up",
        "question": "Is the language known?",
        "corpus": {"name": "calls", "source": "folder", "language": code, "options": {"path": "."}},
        "models": ["micro"],
        "normaliser": "auto",
    }


def test_it_is_not_there_before() -> None:
    assert "tokish" not in normalisers() and find_language("qt") is not TOKISH
    with pytest.raises(BadInput, match="there are normalisers for ar, cmn, da"):
        for_language("qt")


@pytest.mark.parametrize("code", ["qt", "qt-XX", "QTO_latn"])
def test_the_normaliser_of_auto(tokish: Language, code: str) -> None:
    assert for_language(code) is SPOKEN is normaliser("tokish")
    assert experiment_from(experiment(code), Path(".")).rules.rule(code) is SPOKEN


def test_it_is_scored(tokish: Language) -> None:
    scores = score(["Dr. 12"], ["doka mi ro"], normaliser("tokish"))
    assert headline_rate(scores.normaliser) == "wer" and scores.wer == 1 / 3


def test_kinds_of_errors(tokish: Language) -> None:
    assert has_rule("agreement", tokish) and not has_rule("homophone", tokish)
    assert names_in("Wa Pela ta.", SPOKEN, tokish) == {"pela"}
    pairs = ("12", "13", "number"), ("rewa", "rewak", "agreement"), ("ye", "rewa", "substitution")
    rows = [Prediction(str(i), "s", *texts, "qt-XX", 1.0) for i, (*texts, _) in enumerate(pairs)]
    kinds = [[error.kind for error in errors] for errors in classify(rows, SPOKEN)]
    assert kinds == [[kind] for *_, kind in pairs]
    assert buckets(rows, SPOKEN)["homophone"] is None and buckets(rows, SPOKEN)["accent"] == 0


def test_the_data_report(tokish: Language) -> None:
    assert [kind_of(letter, ["qto"]) for letter in "aþø"] == ["letter", "letter", "foreign"]
    rows = character_rows([part_of("þa øe", "ta þu", code="qt")])
    assert [row["which, and how often"] for row in rows if "outside" in row["what"]] == ["ø 1"]
    assert text_rows([part_of("mi na", code="qt")])[0]["counted"] == "words"


def test_words_that_are_not_parted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(LANGUAGES, "qt", Language("qt", "Tokish", spaced=False))
    assert text_rows([part_of("mi na", code="qt")])[0]["counted"] == "characters"
