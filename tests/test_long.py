"""Sets that are not short clips of one language: whole calls, decoded in pieces, and two languages
in one set."""

import json
from pathlib import Path

import numpy as np
import soundfile
from asr_nb.evaluation.decoding import read_predictions
from asr_nb.evaluation.scoring import score
from asr_nb.preprocessing.sound.audio import load
from asr_nb.preprocessing.sources.synthetic import utterances
from asr_nb.preprocessing.text.normalisers import normaliser
from conftest import command, result, run_folders

EXPERIMENT = """
name: calls
question: What is in whole calls?
corpus: {name: short, source: synthetic, language: en, options: {test: 24}}
tests:
  - name: whole
    source: folder
    language: en
    long: true
    options:
      path: calls
      columns: {audio: file, text: text, speaker: who}
      splits: {test: manifest.jsonl}
  - name: both
    source: folder
    role: source
    options:
      path: both
      columns: {audio: file, text: text, speaker: who, language: lang}
      splits: {test: manifest.jsonl}
models: [micro]
normaliser: basic
"""


def both(folder: Path) -> None:
    """Twelve English and twelve Danish sentences in one set."""
    folder.mkdir()
    lines = []
    for row in (*utterances("en", {"test": 12}), *utterances("da", {"test": 12})):
        (folder / f"{row.id}.flac").write_bytes(row.audio)
        lines.append(
            json.dumps(
                {
                    "file": f"{row.id}.flac",
                    "who": row.speaker,
                    "text": row.text,
                    "lang": row.language,
                }
            )
        )
    (folder / "manifest.jsonl").write_text("\n".join(lines))


def calls(folder: Path) -> None:
    """Two calls of twelve sentences each, with pauses, and their transcripts."""
    folder.mkdir()
    rows, lines, generator = utterances("en", {"test": 24}), [], np.random.default_rng(0)
    for n in range(2):
        parts = [
            part
            for row in rows[12 * n : 12 * n + 12]
            for part in (load(row.audio), np.zeros(int(16_000 * generator.uniform(0.3, 1.5))))
        ]
        soundfile.write(folder / f"{n}.flac", np.concatenate(parts), 16_000)
        lines.append(
            json.dumps(
                {
                    "file": f"{n}.flac",
                    "who": f"agent {n}",
                    "text": " ".join(row.text for row in rows[12 * n : 12 * n + 12]),
                }
            )
        )
    (folder / "manifest.jsonl").write_text("\n".join(lines))


def test_whole_calls_are_decoded_in_pieces_and_with_beams(tmp_path: Path) -> None:
    calls(tmp_path / "calls")
    both(tmp_path / "both")
    (tmp_path / "calls.yaml").write_text(EXPERIMENT)
    run = command(
        "run", "calls.yaml", "--stage", "baseline", "-p", "beams=2", "--out", "runs", cwd=tmp_path
    )
    assert run.code == 0, run.err
    folder = run_folders(tmp_path / "runs" / "calls")["baseline-micro"]
    record, rows = result(folder), read_predictions(folder / "predictions.jsonl")
    whole, short = ([row for row in rows if row.test_set == name] for name in ("whole", "short"))
    assert all(row.duration > 20 and row.pieces >= 12 for row in whole) and {
        row.pieces for row in short
    } == {1}
    assert record["metrics"]["whole.pieces"]["value"] == sum(row.pieces for row in whole)
    assert record["inputs"]["decoding"]["beams"] == 2
    texts = " ".join(row.hypothesis for row in whole).split()
    assert not [one for one, other in zip(texts, texts[1:]) if one == other], "a word is doubled"
    rates = [
        score(
            [row.reference for row in some], [row.hypothesis for row in some], normaliser("basic")
        ).wer
        for some in (whole, short)
    ]
    assert rates[0] <= rates[1] + 0.05, rates  # 24 sentences: a word is half a point
    apart = {
        language: record["metrics"][f"both.wer_{language}"]["value"] for language in ("en", "da")
    }
    assert apart["en"] < record["metrics"]["both.wer"]["value"] < apart["da"], (
        "each language has its own rate"
    )
