"""What is no number, no count and no text is refused by name, or has a sensible answer: never an
error of numpy, never NaN in a table."""

import dataclasses
import math
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from asr_nb.checks import BadInput
from asr_nb.evaluation import (
    blocks,
    errors,
    matched_pairs,
    power,
    rate_intervals,
    scoring,
    significance,
    slices,
)
from asr_nb.evaluation.decoding import Prediction, read_predictions, write_predictions
from asr_nb.evaluation.summary import pair
from asr_nb.preprocessing.corpus.utterances import (
    Utterance,
    utterance_from_row,
    utterance_to_row,
)
from asr_nb.preprocessing.sources.rows import Unreadable, read_utterance
from asr_nb.preprocessing.text.normalisers import normaliser
from asr_nb.runs.executors import run_local
from asr_nb.runs.experiment import load_experiment
from asr_nb.runs.record import read_result

BASIC = normaliser("basic")
ODD = (None, math.nan, math.inf, -math.inf, -1, 2.5, "", "x", [], {})
COUNTS = [1, 0, 2, 1, 0, 3]
WORDS = [9, 8, 7, 9, 8, 7]
BLOCKS = ["a", "b", "c", "d", "e", "f"]
ROWS = [Prediction(f"u{n}", "set", "a b c", "a x c", "en", 1.5, f"s{n}") for n in range(6)]
ALIGNED = [scoring.align("a b c d", "a x c d")] * 3


def with_odd(values: list, odd: Any) -> list:
    """The values, one of them odd."""
    return [*values[:2], odd, *values[3:]]


def numbers_in(value: Any) -> Iterator[float]:
    """The numbers that an answer is made of."""
    if isinstance(value, dict):
        value = list(value.values())
    if dataclasses.is_dataclass(value):
        value = [getattr(value, one.name) for one in dataclasses.fields(value)]
    if isinstance(value, (list, tuple, np.ndarray)):
        for part in value:
            yield from numbers_in(part)
    if isinstance(value, (float, np.floating)):
        yield float(value)


Call = Callable[[Any], Any]
NUMBERS: dict[str, Call] = {  # by what is odd in it
    "smallest_difference error": lambda odd: power.smallest_difference(odd, 9),
    "smallest_difference blocks": lambda odd: power.smallest_difference(0.1, odd),
    "power_planned wer": lambda odd: power.power_planned(odd, 900, 9),
    "power_planned words": lambda odd: power.power_planned(0.1, odd, 9),
    "power_planned speakers": lambda odd: power.power_planned(0.1, 900, odd),
    "power_planned spread": lambda odd: power.power_planned(0.1, 900, 9, spread=odd),
    "power_planned clumping": lambda odd: power.power_planned(0.1, 900, 9, clumping=odd),
    "power_planned correlation": lambda odd: power.power_planned(0.1, 900, 9, correlation=odd),
    "rate_error wer": lambda odd: power.rate_error(odd, 900, 9),
    "power_of_baseline errors": lambda odd: power.power_of_baseline(odd, WORDS, BLOCKS),
    "power_of_baseline an error": lambda odd: power.power_of_baseline(
        with_odd(COUNTS, odd), WORDS, BLOCKS
    ),
    "power_of_baseline a word": lambda odd: power.power_of_baseline(
        COUNTS, with_odd(WORDS, odd), BLOCKS
    ),
    "power_of_baseline correlation": lambda odd: power.power_of_baseline(
        COUNTS, WORDS, BLOCKS, odd
    ),
    "power_of_difference an error": lambda odd: power.power_of_difference(
        COUNTS, with_odd(COUNTS, odd), WORDS, BLOCKS
    ),
    "blocks_needed": lambda odd: power.blocks_needed(power.Power(0.1, 0.03, 9, ""), odd),
    "thirds": lambda odd: slices.thirds(with_odd([1.0, 2.0, 3.0, 4.0], odd)),
    "bands": lambda odd: slices.bands(with_odd([1.0, 2.0, 3.0, 4.0], odd), (2, 5), "s"),
    "slices_of levels": lambda odd: slices.slices_of(ROWS, BASIC, levels={"u1": odd, "u2": 3.0}),
    "buckets worst": lambda odd: errors.buckets(ROWS, BASIC, odd),
    "confusions count": lambda odd: errors.confusions(ROWS, BASIC, odd),
    "regressions count": lambda odd: errors.regressions(ROWS, ROWS, BASIC, odd),
    "Prediction duration": lambda odd: dataclasses.replace(ROWS[0], duration=odd),
    "Utterance duration": lambda odd: Utterance("u", "a b", "en", odd),
}
TEXTS: dict[str, Call] = {
    "score a reference": lambda odd: scoring.score([odd], ["a"], BASIC).named(),
    "score a hypothesis": lambda odd: scoring.score(["a"], [odd], BASIC).named(),
    "score references": lambda odd: scoring.score(odd, [], BASIC).named(),
    "tokens": lambda odd: scoring.tokens(odd),
    "loops": lambda odd: scoring.loops(odd),
    "Prediction hypothesis": lambda odd: dataclasses.replace(ROWS[0], hypothesis=odd),
    "Prediction reference": lambda odd: dataclasses.replace(ROWS[0], reference=odd),
    "mapsswe alignments": lambda odd: matched_pairs.mapsswe(ALIGNED, [odd] * 3),
    "segments": lambda odd: matched_pairs.segments(ALIGNED[0], odd),
}
SIGNIFICANCE: dict[str, Call] = {
    "wilson k": lambda odd: rate_intervals.wilson(odd, 10),
    "wilson n": lambda odd: rate_intervals.wilson(0, odd),
    "rate_interval errors": lambda odd: rate_intervals.rate_interval(odd, WORDS, BLOCKS),
    "rate_interval an error": lambda odd: rate_intervals.rate_interval(
        with_odd(COUNTS, odd), WORDS, BLOCKS
    ),
    "rate_interval a word": lambda odd: rate_intervals.rate_interval(
        COUNTS, with_odd(WORDS, odd), BLOCKS
    ),
    "share_interval a clip": lambda odd: rate_intervals.share_interval(
        with_odd([1, 0, 1, 0, 0, 1], odd), BLOCKS
    ),
    "difference_interval an error": lambda odd: significance.difference_interval(
        COUNTS, with_odd(COUNTS, odd), WORDS, BLOCKS
    ),
    "difference_interval a word": lambda odd: significance.difference_interval(
        COUNTS, COUNTS[::-1], with_odd(WORDS, odd), BLOCKS
    ),
    "standard_error a word": lambda odd: blocks.standard_error(
        COUNTS, with_odd(WORDS, odd), BLOCKS
    ),
    "mcnemar a_only": lambda odd: significance.mcnemar(odd, 3),
    "mcnemar b_only": lambda odd: significance.mcnemar(3, odd),
    "holm a p": lambda odd: significance.holm([0.2, odd, 0.01]),
    "holm p_values": lambda odd: significance.holm(odd),
}


def refused_or_sensible(call: Call, odd: Any) -> None:
    """It raises BadInput, or its answer has no NaN and no infinity in it."""
    try:
        answer = call(odd)
    except BadInput as error:
        assert "\n" not in str(error) and len(error.field) < 60
    else:
        assert all(map(math.isfinite, numbers_in(answer))), answer


@pytest.mark.parametrize("odd", ODD, ids=repr)
@pytest.mark.parametrize("name", [*NUMBERS, *TEXTS])
def test_what_is_odd_is_refused_by_name_or_answered(name: str, odd: Any) -> None:
    refused_or_sensible((NUMBERS | TEXTS)[name], odd)


@pytest.mark.parametrize("odd", ODD, ids=repr)
@pytest.mark.parametrize("name", SIGNIFICANCE)
def test_significance_refuses_by_name_or_answers(name: str, odd: Any) -> None:
    refused_or_sensible(SIGNIFICANCE[name], odd)


REFUSED: list[tuple[str, Call, Any]] = [
    *(("power_planned wer", NUMBERS["power_planned wer"], odd) for odd in (-0.1, 0.0, 10.0)),
    *(("an error", NUMBERS["power_of_baseline an error"], odd) for odd in (-1, None, math.nan)),
    *(("duration", NUMBERS["Prediction duration"], odd) for odd in (math.nan, math.inf, -1, "1")),
    *(("worst", NUMBERS["buckets worst"], odd) for odd in (-1, 2.5)),
    ("hypothesis", TEXTS["score a hypothesis"], None),
]
REFUSED_BY_SIGNIFICANCE: list[tuple[str, Call, Any]] = [
    *(("mcnemar", SIGNIFICANCE["mcnemar a_only"], odd) for odd in (math.nan, None, -1, 2.5)),
    *(("wilson", SIGNIFICANCE["wilson k"], odd) for odd in (2.5, math.nan, None, -1)),
    *(("holm", SIGNIFICANCE["holm a p"], odd) for odd in (math.nan, None, -0.1, "x")),
    *(("errors", SIGNIFICANCE["rate_interval an error"], odd) for odd in (-1, None, math.inf)),
    *(("clips", SIGNIFICANCE["share_interval a clip"], odd) for odd in (-1, 2.5, None)),
]


@pytest.mark.parametrize("name, call, odd", REFUSED)
def test_what_must_be_refused(name: str, call: Call, odd: Any) -> None:
    with pytest.raises(BadInput):
        call(odd)


@pytest.mark.parametrize("name, call, odd", REFUSED_BY_SIGNIFICANCE)
def test_what_significance_must_refuse(name: str, call: Call, odd: Any) -> None:
    with pytest.raises(BadInput):
        call(odd)


@pytest.mark.parametrize("pair", [("a", "a\0"), (1, "1"), ("a", "a "), (1, 1.5)])
def test_blocks_of_different_names_are_apart(pair: tuple[Any, Any]) -> None:
    names = [pair[n % 2] for n in range(6)]
    assert rate_intervals.rate_interval(COUNTS, WORDS, names).blocks == 2
    assert power.power_of_baseline(COUNTS, WORDS, names).blocks == 2


@pytest.mark.parametrize("duration", ["nan", "inf", "1e999", "-1", math.inf, "one"])
def test_a_row_whose_length_is_no_number_is_set_aside(duration: Any) -> None:
    columns = {"audio": "audio", "text": "text", "duration": "duration"}
    row = {"audio": "a.wav", "text": "a b", "duration": duration}
    with pytest.raises(Unreadable, match="duration: not a length"):
        read_utterance(row, columns, None, "a", "en")


@pytest.mark.parametrize("number", ["NaN", "1e999", '"nan"', "-1", '"x"', "null"])
def test_a_file_of_predictions_with_an_odd_length_is_refused(tmp_path: Path, number: str) -> None:
    path = write_predictions(ROWS, tmp_path / "predictions.jsonl")
    path.write_text(path.read_text("utf-8").replace("1.5", number, 1), "utf-8")
    with pytest.raises(BadInput, match="predictions.jsonl line 1"):
        read_predictions(path)


def test_a_file_of_predictions_in_latin_1_is_refused(tmp_path: Path) -> None:
    path = write_predictions(ROWS, tmp_path / "predictions.jsonl")
    path.write_bytes(path.read_bytes().replace(b"a x c", "å x c".encode("latin-1")))
    with pytest.raises(BadInput, match="predictions.jsonl line 1: .*UTF-8"):
        read_predictions(path)


def test_a_manifest_of_a_store_with_an_odd_length_is_refused() -> None:
    row = utterance_to_row(Utterance("u", "a b", "en", 1.5))
    with pytest.raises(BadInput, match="duration"):
        utterance_from_row({**row, "duration": math.inf})


def test_a_record_with_nan_is_refused(tmp_path: Path) -> None:
    (tmp_path / "result.json").write_text('{"status": "finished", "metrics": {"a": NaN}}')
    with pytest.raises(BadInput, match="NaN is not JSON"):
        read_result(tmp_path)


def test_two_predictions_for_an_utterance_are_refused() -> None:
    for first, second in ((ROWS, [*ROWS, ROWS[0]]), ([*ROWS, ROWS[0]], ROWS)):
        with pytest.raises(BadInput, match="id: 'u0'.*one prediction"):
            pair(first, second)


def test_a_limit_of_nan_hours_is_refused(tmp_path: Path) -> None:
    experiment = load_experiment("toy")
    with pytest.raises(BadInput, match="hours: nan"):
        run_local(experiment, [], tmp_path, hours=math.nan)
