"""Numerals with several readings: what the scorer may forgive, what it must not, and what it
costs."""

import csv
import random
import time
from importlib.util import find_spec
from pathlib import Path

import pytest
from rapidfuzz.distance import Levenshtein

from asr_nb.evaluation.scoring import fit, normalised, score
from asr_nb.preprocessing.text.normalisers import for_language, normaliser, normalisers
from asr_nb.preprocessing.text.spelling import PASSES, Normaliser

RULES = [rule for rule in normalisers().values() if rule.alternatives]
EACH = pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.name)
if not find_spec("opencc"):
    RULES = [rule for rule in RULES if rule.name != "chinese_simplified"]
DIGITS = "0 1 2 3 5 7 07 10 12 15 20 21 30 100 101 555 1000 1234 1500 1990 2005 1000000".split()
BETWEEN = ("", "", " ", ".", ",", ":", "-", "–", "/", "_", "'", "x", "٫", "⁄", " - ", "\u00a0", "²")
AROUND = tuple(
    "% ° °C $ £ € ¥ ₽ ₩ km kg m h s st th er e º ª Uhr uhr pm p.m. k M bn Mio. mio. million kr. "
    "No. Nr. n° № # − - + = ( ) ' . ½ ¾ May mai 年 月 点 两 个 시 원 th. hundred hundert cent "
    "mille".split()
)


def fragments(dice: random.Random) -> str:
    """A text of digits, marks, suffixes, signs and units, with blanks here and there."""
    parts = []
    for _ in range(dice.randint(1, 6)):
        kinds = dice.choice((DIGITS, DIGITS, BETWEEN, AROUND))
        parts += [dice.choice(kinds), dice.choice(("", "", " "))]
    return "".join(parts)


@EACH
def test_twice_is_once_and_it_ends(rule: Normaliser) -> None:
    """The first pass may make a numeral that only the next one sees; some pass is the last."""
    dice = random.Random(rule.name)
    for _ in range(3_000):
        text = fragments(dice)
        once = rule(text)
        assert rule(once) == once, (text, once, rule(once))


def test_a_fixed_point_needs_fewer_passes_than_it_has() -> None:
    from asr_nb.preprocessing.text.spelling import fixed_point

    passes = []
    fixed_point(lambda text: passes.append(text) or text, "1")
    assert len(passes) == 2, "a text that stays is read once more, and no oftener"
    passes.clear()
    fixed_point(lambda text: passes.append(text) or text + "1", "1")
    assert len(passes) == PASSES, "a rule without a fixed point ends, too"


@EACH
def test_readings_are_normalised(rule: Normaliser) -> None:
    dice = random.Random(rule.name)
    for _ in range(400):
        text = fragments(dice)
        for group in rule.readings(text):
            assert len(group) > 1 and len(set(group)) == len(group), text
            assert [rule(phrase) for phrase in group] == list(group), (text, group)
    assert rule.readings("") == ()


@EACH
def test_a_fit_never_costs_an_error(rule: Normaliser) -> None:
    """Neither words nor characters, whatever stands on the two sides; and the reference stays."""
    dice = random.Random(rule.name)
    for _ in range(600):
        sides = [f"a {fragments(dice)} b {fragments(dice)} c" for _ in range(2)]
        if dice.random() < 0.5:  # nearly the same
            sides[1] = sides[0].replace(dice.choice(DIGITS), dice.choice(DIGITS), 1)
        reference, before = (normalised(side, rule) for side in sides)
        scores = score([sides[0]], [sides[1]], rule)
        after = scores.hypotheses[0]
        assert scores.references == [reference] and after == fit(*sides, rule)
        assert after == " ".join(after.split())
        plain = str if not rule.spaceless else lambda text: text.replace(" ", "")
        for split in (str.split, plain):
            target = split(reference)
            errors = [Levenshtein.distance(target, split(text)) for text in (before, after)]
            assert errors[1] <= errors[0], (sides, before, after)


def test_two_systems_have_one_denominator() -> None:
    """Whatever the systems wrote, errors are divided by the same number of words."""
    english = normaliser("english")
    reference = ["In 1500, 555-1234 cost $5.50 at 10:30."]
    systems = (
        "in fifteen hundred five five five one two three four cost five fifty at half past ten",
        "in one thousand five hundred triple five twelve thirty four cost 5.50 dollars at 10:30",
        "In 1,500 555 1234 cost 5 dollars 50 at 10.30",
        "",
    )
    scores = [score(reference, [text], english) for text in systems]
    assert len({int(s.words.reference[0]) for s in scores}) == 1
    assert len({tuple(s.references) for s in scores}) == 1
    assert scores[0].wer == 0.0 and scores[-1].wer == 1.0


@EACH
def test_another_number_is_never_forgiven(rule: Normaliser) -> None:
    """No whole number has a reading that is what another one's digits say."""
    values = [*range(130), *range(200, 2100, 7), *range(3000, 100_000, 991)]
    own = {rule(str(value)): value for value in values}
    for value in values:
        canonical = rule(str(value))
        for first, *others in rule.readings(str(value)):
            if first == canonical:
                assert {own.get(other, value) for other in others} <= {value}, value


def test_a_wrong_digit_counts() -> None:
    english = normaliser("english")
    dice = random.Random(5)
    for form in (
        "{}",
        "${}",
        "{}%",
        "{} people",
        "in {}",
        "{}km",
        "{:,}",
        "-{}",
        "${}.50",
        "{}:30",
    ):
        for _ in range(40):
            first, second = dice.sample(range(1, 13 if ":" in form else 10_000), 2)
            texts = [form.format(number) for number in (first, second)]
            assert score(texts[:1], texts[1:], english).wer > 0, texts


def test_renderings() -> None:
    """What is said and what is written, on either side: the count of the notebook."""
    english, counts = normaliser("english"), [0, 0]
    for name in ("en_61", "en_more"):
        path = Path(__file__).parent / "renderings" / f"{name}.tsv"
        with path.open(encoding="utf-8") as file:
            for row in csv.DictReader(file, delimiter="\t"):
                pair = row["spoken"], row["written"]
                for side, (reference, hypothesis) in enumerate((pair, pair[::-1])):
                    scores = score([reference], [hypothesis], english)
                    counts[side] += int(scores.words.errors.sum())
    assert counts == [2, 2], counts  # Elizabeth II, whose numeral is left alone


def test_a_changed_digit_is_never_forgiven() -> None:
    """Where a rendering costs nothing, the same one with another digit costs something."""
    dice, forgiven = random.Random(0), []
    for path in sorted((Path(__file__).parent / "renderings").glob("*.tsv")):
        rule = for_language(path.stem.partition("_")[0])
        with path.open(encoding="utf-8") as file:
            rows = list(csv.DictReader(file, delimiter="\t"))
        for row in rows:
            spoken, written = row["spoken"], row["written"]
            digits = [place for place, character in enumerate(written) if character.isdecimal()]
            if not digits or score([spoken], [written], rule).primary.errors.any():
                continue
            place, step = dice.choice(digits), dice.randint(1, 9)
            digit = str((int(written[place]) + step) % 10)
            other = written[:place] + digit + written[place + 1 :]
            if not score([spoken], [other], rule).primary.errors.any():
                forgiven.append((path.stem, spoken, written, other))
    assert forgiven == []


@pytest.mark.parametrize(
    ("code", "left"),
    # what is left is the numeral of a king, and a *one* that Russian leaves out
    [*dict(da=(2, 2), de=(2, 2), fr=(1, 1), es=(1, 1), ru=(2, 3)).items()]
    + [(code, (0, 0)) for code in ("zh", "ko", "ar")],
)
def test_renderings_of_other_languages(code: str, left: tuple[int, int]) -> None:
    """The pairs by which the rules were made, and the second hundred, by which they were mended."""
    rule, counts = for_language(code), [0, 0]
    for name in (code, f"{code}_later"):
        path = Path(__file__).parent / "renderings" / f"{name}.tsv"
        with path.open(encoding="utf-8") as file:
            for row in csv.DictReader(file, delimiter="\t"):
                pair = row["spoken"], row["written"]
                for side, (reference, hypothesis) in enumerate((pair, pair[::-1])):
                    counts[side] += int(score([reference], [hypothesis], rule).primary.errors.sum())
    assert tuple(counts) == left


def test_text_without_digits_costs_next_to_nothing() -> None:
    """Readings of a text without digits are a search; a fit is made only where texts differ."""
    english = normaliser("english")
    words = "the quick brown fox jumps over a lazy dog while nobody counts them".split()
    dice = random.Random(1)
    texts = [" ".join(dice.choices(words, k=15)) for _ in range(1_000)]

    def seconds(work) -> float:
        start = time.process_time()
        for text in texts:
            work(text)
        return time.process_time() - start

    normal, more = (min(seconds(work) for _ in range(5)) for work in (english, english.readings))
    assert more < 0.25 * normal, (normal, more)


@EACH
def test_a_long_text_is_fitted_in_time(rule: Normaliser) -> None:
    """An hour of speech in one text, a number in every line; and one numeral a thousand times."""
    dice = random.Random(2)
    lines = [f"a b {dice.choice(DIGITS)} c d e {dice.choice('fgh')}" for _ in range(700)]
    noisy = [line if dice.random() < 0.9 else "f g" for line in lines]
    start = time.process_time()
    fit("\n".join(lines), "\n".join(noisy), rule)
    others = [group[1] for group in rule.readings("1500")][:1] or ["a"]
    fit(" b ".join(others * 400), "1500 c " * 400, rule)
    assert time.process_time() - start < 30
    assert rule.readings("no digit here") == ()
