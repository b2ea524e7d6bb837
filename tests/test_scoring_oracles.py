"""The scorer against jiwer and NIST's sclite (Debian: apt-get install sctk; skipped without it);
and that buckets sum to what was scored.

sclite weighs a substitution 4 and the others 3. Of two ways with as many errors it takes the one
with more words right, so its split into kinds differs from ours in some utterances. What must
agree: words, the least cost under its own weights, and the errors: never fewer than ours, and the
same wherever most words are right. Only where next to nothing is right can its way have an error
more.
"""

import random
import re
import subprocess
from collections import Counter
from pathlib import Path

import jiwer
import numpy as np
import pytest
from asr_nb.evaluation import errors, pronunciation, slices
from asr_nb.evaluation.decoding import Prediction
from asr_nb.evaluation.scoring import Counts, score
from asr_nb.evaluation.rate_intervals import rate_interval
from asr_nb.evaluation.significance import difference_interval
from asr_nb.evaluation.summary import scores_of
from asr_nb.preprocessing.text.normalisers import normaliser
from hypothesis import given, settings
from hypothesis import strategies as st
from rapidfuzz.distance import Levenshtein

SCLITE = Path("/usr/lib/sctk/bin/sclite")
UTTERANCES = 10_000


def texts(seed: int, vocabulary: int, wrong: float) -> tuple[list[str], list[str]]:
    """References and hypotheses of 0 to 20 words; few words: the same ones come again and again."""
    generator = random.Random(seed)
    words = [
        f"{generator.choice(('få', 'sø', 'it', 'æb', 'élé'))}{chr(97 + i % 26)}{i // 26 or ''}"
        for i in range(vocabulary)
    ]
    references, hypotheses = [], []
    for _ in range(UTTERANCES):
        reference, hypothesis = (
            [generator.choice(words) for _ in range(generator.randint(0, 20))],
            [],
        )
        for word in reference:
            chance = generator.random()
            hypothesis += (
                [generator.choice(words)]
                if chance < 0.6 * wrong
                else []
                if chance < 0.8 * wrong
                else [word]
            )
            hypothesis += [generator.choice(words)] if generator.random() < 0.2 * wrong else []
        references.append(" ".join(reference))
        hypotheses.append(" ".join(hypothesis))
    return references, hypotheses


def table(counts: Counts) -> np.ndarray:
    """Hits, substitutions, deletions and insertions of each utterance."""
    return np.stack(
        [counts.hits, counts.substitutions, counts.deletions, counts.insertions], axis=1
    )


@pytest.mark.parametrize("vocabulary", [3000, 12])
def test_counts_like_jiwer(vocabulary: int) -> None:
    references, hypotheses = texts(0, vocabulary, 0.3)
    scores = score(references, hypotheses, normaliser("basic"))
    for ours, process in (
        (scores.words, jiwer.process_words),
        (scores.characters, jiwer.process_characters),
    ):
        counted = process(references, hypotheses)
        rows = []
        for chunks in counted.alignments:
            kinds = Counter()
            for chunk in chunks:
                kinds[chunk.type] += max(
                    chunk.ref_end_idx - chunk.ref_start_idx, chunk.hyp_end_idx - chunk.hyp_start_idx
                )
            rows.append([kinds[kind] for kind in ("equal", "substitute", "delete", "insert")])
        assert (table(ours) == np.array(rows)).all(), "utterance by utterance"
        assert ours.rate == getattr(counted, "wer" if hasattr(counted, "wer") else "cer")


def sclite(folder: Path, references: list[str], hypotheses: list[str]) -> np.ndarray:
    """What sclite counts in each utterance."""
    for name, lines in (("references", references), ("hypotheses", hypotheses)):
        rows = [f"{line} (s{i % 20}_{i:05d})\n" for i, line in enumerate(lines)]
        (folder / name).write_text("".join(rows), encoding="utf-8")
    arguments = [
        "-r",
        "references",
        "trn",
        "-h",
        "hypotheses",
        "trn",
        "-i",
        "spu_id",
        "-e",
        "utf-8",
        "-s",
        "-o",
        "sgml",
        "stdout",
    ]
    process = subprocess.run(
        [SCLITE, *arguments],
        cwd=folder,
        capture_output=True,
        encoding="utf-8",
        timeout=120,
        check=True,
    )
    paths = dict(re.findall(r'<PATH id="\(?s\d+_(\d+)\)?"[^>]*>\n(.*)\n</PATH>', process.stdout))
    kinds = [re.findall(r"(?:^|:)([CSDI]),", paths[f"{i:05d}"]) for i in range(len(references))]
    return np.array([[row.count(kind) for kind in "CSDI"] for row in kinds])


@pytest.mark.skipif(not SCLITE.exists(), reason="sctk is not installed")
@pytest.mark.parametrize(
    ("vocabulary", "wrong", "longer"), [(3000, 0.3, 0), (30, 0.2, 0), (12, 0.8, 0.02)]
)
def test_counts_like_sclite(tmp_path: Path, vocabulary: int, wrong: float, longer: float) -> None:
    references, hypotheses = texts(1, vocabulary, wrong)
    ours, theirs = (
        table(score(references, hypotheses, normaliser("basic")).words),
        sclite(tmp_path, references, hypotheses),
    )
    assert (ours[:, :3].sum(1) == theirs[:, :3].sum(1)).all(), "words of the references"
    assert (ours[:, 2] - ours[:, 3] == theirs[:, 2] - theirs[:, 3]).all(), "words of the hypotheses"
    cost = [
        Levenshtein.distance(a.split(), b.split(), weights=(3, 3, 4))
        for a, b in zip(references, hypotheses, strict=True)
    ]
    assert (theirs @ [0, 4, 3, 3] == cost).all(), "sclite's own measure"
    more = theirs[:, 1:].sum(1) - ours[:, 1:].sum(1)
    assert (more >= 0).all() and (more > 0).mean() <= longer, (
        f"{(more > 0).sum()} utterances, {more.sum()} errors more"
    )
    assert (theirs[:, 0] >= ours[:, 0])[more == 0].all(), "it prefers words that are right"


PIECES = [
    "ja",
    "Nej",
    "to",
    "tre",
    "tres",
    "bog",
    "bogen",
    "café",
    "cafe",
    "å",
    "a",
    "7",
    "77",
    "?",
    "York",
    "你",
    "你好",
    "三",
    "-",
    "é",
]
TEXT = st.lists(st.sampled_from(PIECES) | st.text(max_size=4), max_size=16).map(" ".join)


@settings(max_examples=200, deadline=None)
@given(
    reference=TEXT,
    hypothesis=TEXT,
    language=st.sampled_from(["en", "da-DK", "fr", "de", "es", "zh", "ko", ""]),
    rule=st.sampled_from(["basic", "verbatim", "chinese", "danish"]),
)
def test_buckets_sum_to_the_errors(
    reference: str, hypothesis: str, language: str, rule: str
) -> None:
    row, normalise = Prediction("a", "set", reference, hypothesis, language, 1.0), normaliser(rule)
    (mistakes,), counts = errors.classify([row], normalise), scores_of([row], normalise).primary
    assert (
        len(mistakes)
        == counts.errors[0]
        == sum(filter(None, errors.buckets([row], normalise).values()))
    )
    assert [error.place for error in mistakes] == sorted(error.place for error in mistakes)
    assert (
        sum(bool(error.reference and error.hypothesis) for error in mistakes)
        == counts.substitutions[0]
    )
    assert {error.kind for error in mistakes} <= set(errors.BUCKETS)


def test_without_espeak_homophones_are_not_guessed(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (errors, pronunciation):
        monkeypatch.setattr(module, "available", lambda: False)
    errors._substitution.cache_clear()
    row = Prediction("a", "set", "I went there too", "I went their two", "en", 1.0)
    counts = errors.buckets([row], normaliser("basic"))
    errors._substitution.cache_clear()
    assert (counts["homophone"], counts["substitution"], counts["number"]) == (None, 1, 1)


def predictions(wrong: float, seed: int) -> list[Prediction]:
    """A test set of 200 speakers with the hypotheses of one system."""
    references, _ = texts(2, 4000, 0)
    generator, words = (
        random.Random(seed),
        sorted({word for line in references for word in line.split()}),
    )
    return [
        Prediction(
            str(i),
            "calls",
            line.capitalize() + ".",
            " ".join(
                generator.choice(words) if generator.random() < wrong else word
                for word in line.split()
            ),
            "da",
            1 + len(line) / 15,
            f"s{i % 200}",
            tags={"dialect": f"d{i % 7}", "channel": "phone" if i % 2 else "clean"},
        )
        for i, line in enumerate(references)
    ]


def test_ten_thousand_utterances_are_all_accounted_for() -> None:
    """Two systems scored, sliced, sorted into buckets and given intervals; the run notebook
    `score_speed` measures how long it takes."""
    before, after, rule = predictions(0.15, 1), predictions(0.12, 2), normaliser("danish")
    scores = [scores_of(rows, rule) for rows in (before, after)]
    named = [one.named() for one in scores]
    speakers = [row.speaker for row in before]
    intervals = [rate_interval(one.words.errors, one.words.reference, speakers) for one in scores]
    change = difference_interval(
        *(one.words.errors for one in scores), scores[0].words.reference, speakers
    )
    rows = slices.slice_table(after, rule, before)
    counts = [errors.buckets(system, rule, None) for system in (before, after)]
    lost = errors.regressions(before, after, rule, None)
    errors.confusions(after, rule)
    errors.distribution(after, rule)
    assert change.high < 0 and named[1]["wer"] < named[0]["wer"] == intervals[0].value
    assert [sum(filter(None, kinds.values())) for kinds in counts] == [
        int(s.words.errors.sum()) for s in scores
    ]
    assert sum(row.n for row in rows if row.slice == "dialect") == UTTERANCES and lost
