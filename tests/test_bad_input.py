"""Bad input: exit code 2, one clear line that names the field, the value and what is allowed, and
nothing lost."""

import fcntl
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile
from conftest import Answer, command, result, run_folders

GOOD = """
name: calls
question: Q?
corpus:
  name: calls
  source: folder
  language: en
  options: {path: clips, columns: {audio: file, text: text, speaker: speaker}%s}
models: [micro]
recipes: [{name: quick, base: full, steps: 2, evaluations: 1}]
"""
SYNTHETIC = """
name: calls
question: Q?
corpus: {name: calls, source: synthetic, language: da, options: {train: 4, test: 2}}
models: [micro]
recipes: [full]
"""


def refused(answer: Answer, *words: str) -> None:
    """One line, from the command or from a run, and it reads: field, what is wrong, what is
    allowed."""
    assert answer.code == 2, (answer.code, answer.out, answer.err)
    lines = [
        line for line in answer.err.splitlines() if re.match("asr-nb: |failed .*bad input: ", line)
    ]
    assert len(lines) == 1 and "Traceback" not in answer.err, answer.err
    assert re.search(r": [^;]+; .", lines[0]), lines[0]
    for word in words:
        assert word in lines[0], f"{word!r} is not in {lines[0]!r}"


@pytest.mark.parametrize(
    "words, named",
    [
        (("run", "dmeo"), ("experiment", "dmeo", "did you mean demo")),
        (("plan", "dmeo"), ("dmeo", "demo")),
        (("run", "toy", "--recipe", "toy-ful"), ("toy-ful", "toy-full")),
        (("run", "toy", "--model", "mikro"), ("mikro", "micro")),
        (("run", "toy", "--stage", "trian"), ("trian", "train")),
        (("run", "toy", "-p", "step=4"), ("step", "steps")),
        (("run", "toy", "-p", "steps=few"), ("steps", "few", "int")),
        (("run", "toy", "-p", "hf_token=abc"), ("hf_token",)),
        (("run", "missing.yaml"), ("missing.yaml",)),
        (("compare", "nowhere", "nowhere"), ("nowhere",)),
        (("card", "nowhere"), ("nowhere",)),
        (("status", "nowhere"), ("nowhere",)),
    ],
)
def test_unknown_names(tmp_path: Path, words: tuple[str, ...], named: tuple[str, ...]) -> None:
    refused(command(*words, cwd=tmp_path), *named)
    assert not any(tmp_path.rglob("*.ipynb"))


@pytest.mark.parametrize(
    "change, named",
    [
        (("recipes: [full]", "recipes: [ful]"), ("recipes[0]", "ful", "full")),
        (
            ("recipes: [full]", "recipes: [{name: full, steps: many}]"),
            ("recipes[0].steps", "many", "int"),
        ),
        (("recipes: [full]", "recipe: [full]"), ("recipe", "recipes")),
        (("train: 4", "train: four"), ("train", "four", "int")),
        (("train: 4", "trian: 4"), ("trian", "train")),
        (("models: [micro]", "models: [mikro]"), ("mikro", "micro")),
        (("models: [micro]", "models: micro"), ("models", "micro")),
        (("source: synthetic", "source: sinthetic"), ("sinthetic", "synthetic")),
        (("question: Q?", "question: [Q"), ("calls.yaml",)),
        (("language: da", "language: dk"), ("dk", "da")),
        (
            ("recipes: [full]", "recipes: [{name: slow, base: full, warmup: 2.0}]"),
            ("slow", "endless-warmup"),
        ),
        (
            ("source: synthetic", "privacy: secret, source: synthetic"),
            ("privacy", "secret", "private"),
        ),
    ],
)
def test_experiments_that_say_something_wrong(
    tmp_path: Path, change: tuple[str, str], named: tuple[str, ...]
) -> None:
    assert change[0] in SYNTHETIC
    (tmp_path / "calls.yaml").write_text(SYNTHETIC.replace(*change))
    refused(command("run", "calls.yaml", cwd=tmp_path), *named)


def speech(seconds: float, level: float = 0.1, seed: int = 0) -> np.ndarray:
    return (level * np.random.default_rng(seed).normal(size=int(16_000 * seconds))).astype(
        np.float32
    )


def corpus(folder: Path, extra: list[dict], good: int = 12, **options: object) -> None:
    """A folder of noise clips with transcripts, and rows that are not as they should be."""
    clips = folder / "clips"
    clips.mkdir()
    rows = [
        {"file": f"{n}.wav", "text": "it costs ten pounds", "speaker": f"s{n % 6}"}
        for n in range(good)
    ]
    for n, row in enumerate(rows):
        soundfile.write(clips / row["file"], speech(1.0, seed=n), 16_000)
    (clips / "manifest.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows + extra))
    more = "".join(f", {key}: {json.dumps(value)}" for key, value in options.items())
    (folder / "calls.yaml").write_text(GOOD % more)


def zoo(clips: Path) -> list[dict]:
    """One row of each kind that can't be used, named after the reason it must get."""
    whole = clips / "whole.wav"
    soundfile.write(whole, speech(1.0, seed=99), 16_000)
    (clips / "truncated.wav").write_bytes(whole.read_bytes()[:9_000])
    (clips / "empty.wav").write_bytes(b"")
    (clips / "undecodable.wav").write_bytes(b"this is no audio" * 40)
    soundfile.write(
        clips / "non_finite.wav", np.full(16_000, np.nan, np.float32), 16_000, subtype="FLOAT"
    )
    soundfile.write(clips / "silent.wav", np.zeros(16_000, np.float32), 16_000)
    soundfile.write(clips / "too_long.wav", speech(31.0), 16_000)
    soundfile.write(clips / "text_empty.wav", speech(1.0, seed=107), 16_000)
    soundfile.write(clips / "label_too_long.wav", speech(1.0, seed=108), 16_000)
    names = [
        "truncated",
        "empty",
        "undecodable",
        "non_finite",
        "silent",
        "too_long",
        "audio_missing",
    ]
    rows = [
        {"file": f"{name}.wav", "text": "it costs ten pounds", "speaker": "s0"} for name in names
    ]
    rows.append({"file": "text_empty.wav", "text": " ", "speaker": "s0"})
    rows.append(
        {"file": "label_too_long.wav", "text": "it costs ten pounds " * 20, "speaker": "s0"}
    )
    rows.append(
        {"file": "0.wav", "text": "it costs ten pounds", "speaker": "s0"}
    )  # an id met before
    return rows


QUIET = 14  # sounds without speech, which an experiment gets that names none


def test_bad_rows_are_in_the_ledger_with_their_reason_and_the_rest_is_prepared(
    tmp_path: Path,
) -> None:
    corpus(
        tmp_path, [], split="speaker", test_speakers=["s1"], dev_speakers=["s2"], max_quarantine=0.9
    )
    with open(tmp_path / "clips" / "manifest.jsonl", "a") as manifest:
        manifest.writelines(json.dumps(row) + "\n" for row in zoo(tmp_path / "clips"))
    answer = command("run", "calls.yaml", "--stage", "prepare", "--out", "runs", cwd=tmp_path)
    assert answer.code == 0, answer.err
    folder = run_folders(tmp_path / "runs" / "calls")["prepare"]
    ledger = [json.loads(line) for line in (folder / "quarantine.jsonl").read_text().splitlines()]
    reasons = {Path(row["id"]).stem: row["reason"] for row in ledger}
    for name, reason in reasons.items():
        assert reason == ("duplicate_id" if name == "0" else name), ledger
    assert len(ledger) == 10 and result(folder)["metrics"]["quarantine.share"]["n"] == 22 + QUIET


def test_too_many_bad_rows_stop_it_and_the_report_stays_readable(tmp_path: Path) -> None:
    corpus(
        tmp_path,
        [{"file": "gone.wav", "text": "gone", "speaker": "s1"}],
        split="speaker",
        test_speakers=["s2"],
        dev_speakers=["s3"],
    )
    answer = command("run", "calls.yaml", "--out", "runs", cwd=tmp_path)
    refused(answer, "audio_missing")
    folder = run_folders(tmp_path / "runs" / "calls")["prepare"]
    notebook = json.loads((folder / "prepare.ipynb").read_text())
    assert "RUN DID NOT FINISH" in "".join(notebook["cells"][0]["source"])


def test_a_manifest_without_the_column(tmp_path: Path) -> None:
    corpus(tmp_path, [])
    text = (tmp_path / "calls.yaml").read_text()
    (tmp_path / "calls.yaml").write_text(text.replace("text: text", "text: transcript"))
    refused(
        command("run", "calls.yaml", "--stage", "prepare", "--out", "runs", cwd=tmp_path),
        "transcript",
        "text",
    )


def test_the_same_sound_in_test_and_train(tmp_path: Path) -> None:
    corpus(tmp_path, [], split="speaker", test_speakers=["s0"], dev_speakers=["s1"])
    clips = tmp_path / "clips"
    (clips / "0.wav").write_bytes((clips / "3.wav").read_bytes())
    refused(
        command("run", "calls.yaml", "--stage", "prepare", "--out", "runs", cwd=tmp_path), "overlap"
    )


def test_out_that_is_not_ours(tmp_path: Path, toy: Path) -> None:
    (tmp_path / "file").write_text("")
    refused(command("run", "toy", "--out", tmp_path / "file"), "out", "can't be written to")
    (tmp_path / "toy.yaml").write_text(SYNTHETIC.replace("name: calls", "name: toy", 1))
    refused(command("run", tmp_path / "toy.yaml", "--out", toy.parent), "another experiment")


def test_two_at_once(toy: Path) -> None:
    with open(toy / ".lock", "a+") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        refused(command("run", "toy", "--out", toy.parent), "process")


def test_a_disk_that_is_nearly_full(tmp_path: Path) -> None:
    code = (
        "import shutil, sys; real = shutil.disk_usage;"
        "shutil.disk_usage = lambda p: real(p)._replace(free=1000);"
        "from asr_nb.cli import main; sys.argv = ['asr-nb', 'run', 'toy', '--out', sys.argv[1]];"
        "main()"
    )
    process = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path)],
        capture_output=True,
        text=True,
        env={**os.environ},
    )
    assert process.returncode == 2 and "Traceback" not in process.stderr, process.stderr
    assert "disk: only 0.0 MB are free; prepare-" in process.stderr
    assert "needs 0.5 GB" in process.stderr


def test_the_plan_says_what_the_corpus_takes_or_why_nobody_can_know(tmp_path: Path) -> None:
    corpus(tmp_path, [], split="speaker", test_speakers=["s1"], dev_speakers=["s2"])
    planned = command("plan", "calls.yaml", "--out", "runs", cwd=tmp_path)
    (line,) = [line for line in planned.out.splitlines() if "prepare-" in line]
    assert planned.code == 0 and re.search(r"disk: \d+\.\d MB$", line), planned.out + planned.err
    text = (tmp_path / "calls.yaml").read_text()
    (tmp_path / "calls.yaml").write_text(text.replace("text: text", "text: transcript"))
    refused(command("plan", "calls.yaml", cwd=tmp_path), "transcript", "text")
