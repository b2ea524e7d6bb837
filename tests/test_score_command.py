"""`asr-nb score` and `asr_nb.wer`: the same figures from every format, those of jiwer and of NIST's
sclite (Debian: apt-get install sctk; skipped without it), and one line for whatever can't be read.
"""

import json
import math
import os
import random
import re
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path

import asr_nb
import jiwer
import numpy as np
import pytest
from asr_nb.checks import BadInput
from asr_nb.transcripts.pairing import Options
from asr_nb.transcripts.formats import FORMATS
from asr_nb.preprocessing.text.normalisers import normaliser, normalisers
from asr_nb.reports.score_report import report_json, report_of, report_text
from conftest import ROOT, command

SCLITE = Path(os.environ.get("SCTK", "/usr/lib/sctk/bin")) / "sclite"
WORDS = [f"{a}{b}{c}" for a in "bdfgklm" for b in ("å", "e", "ie", "ó") for c in ("n", "r", "st")]
Rows = list[tuple[str, str, str, float]]  # id, speaker, text, seconds


def sentences(count: int, wrong: float = 0.0, seed: int = 0) -> Rows:
    """Sentences of a few speakers; a share of the words goes wrong, the sentences stay the same."""
    said, errors, rows = random.Random(seed), random.Random(seed + 1), []
    for n in range(count):
        words = said.choices(WORDS, k=said.randint(3, 12))
        heard = []
        for word in words:
            chance = errors.random()
            heard += [] if chance < wrong / 3 else [f"x{word}"] if chance < wrong else [word]
            heard += ["og"] if errors.random() < wrong / 4 else []
        rows.append((f"p{n % 7}-{n:04d}", f"p{n % 7}", " ".join(heard), 0.5 * len(words)))
    return rows


def jsonl(rows: Rows, **names: str) -> str:
    cells = ({"id": i, "speaker": s, "text": t, "duration": d} for i, s, t, d in rows)
    return "".join(json.dumps({names.get(k, k): v for k, v in row.items()}) + "\n" for row in cells)


def delimited(rows: Rows, sign: str) -> str:
    lines = [("id", "speaker", "text"), *((i, s, t) for i, s, t, _ in rows)]
    return "".join(sign.join(line) + "\n" for line in lines)


def stm(rows: Rows) -> str:
    lines, end = [";; segments of one channel"], 0.0
    for _, speaker, text, seconds in rows:
        lines.append(f"call A {speaker} {end:.2f} {end + seconds:.2f} <o,f0> {text}")
        end += seconds
    return "\n".join(lines) + "\n"


def ctm(rows: Rows) -> str:
    lines, end = [], 0.0
    for _, _, text, seconds in rows:
        words = text.split()
        each = seconds / max(1, len(words))
        lines += [f"call A {end + n * each:.3f} {each:.3f} {w} 0.9" for n, w in enumerate(words)]
        end += seconds
    return "\n".join(lines) + "\n"


WRITERS: dict[str, Callable[[Rows], str]] = {
    "jsonl": jsonl,
    "csv": lambda rows: delimited(rows, ","),
    "tsv": lambda rows: "\ufeff" + delimited(rows, "\t").replace("\n", "\r\n"),
    "trn": lambda rows: "".join(f"{text}  ({id})\n" for id, _, text, _ in rows),
    "stm": stm,
    "ctm": ctm,
    "text": lambda rows: "".join(f"{id} {text}\n" for id, _, text, _ in rows),
    "lines": lambda rows: "".join(f"{text} \n" for _, _, text, _ in rows),
}


def written(folder: Path, **files: tuple[str, Rows]) -> list[Path]:
    """Files by name, each in a format."""
    paths = []
    for name, (form, rows) in files.items():
        ending = (*FORMATS[form].endings, ".txt")[0]
        paths.append(folder / f"{name}{ending}")
        paths[-1].write_text(WRITERS[form](rows), encoding="utf-8")
    return paths


def test_every_format_is_tried_here() -> None:
    assert WRITERS.keys() == FORMATS.keys()


@pytest.mark.parametrize("form", WRITERS)
def test_every_format_gives_the_same_figures(form: str, tmp_path: Path) -> None:
    said, one, two = (sentences(150, wrong) for wrong in (0, 0.2, 0.15))
    options = Options(speaker_before="-" if form in ("trn", "text") else "")
    base = "stm" if form == "ctm" else form
    paths = written(tmp_path, ref=(base, said), one=(form, one), two=(form, two))
    values = report_json(report_of(paths, options=options, worst=0))
    texts = [[text for _, _, text, _ in rows] for rows in (said, one, two)]
    speakers = None if form == "lines" else [speaker for _, speaker, _, _ in said]
    expected = asr_nb.compare(*texts, speakers=speakers)
    for name, score in (("one", expected.first), ("two", expected.second)):
        assert values["systems"][name]["counts"] == score.counts
        assert values["systems"][name]["wer"]["low"] == pytest.approx(score.wer.low, abs=2e-3)
    assert values["differences"][0]["verdict"] == expected.verdict
    assert values["blocks"]["kind"] == ("utterance" if form == "lines" else "speaker")


def test_the_figures_are_those_of_jiwer() -> None:
    """On the normalised texts, in words and in characters."""
    said, heard = (sentences(300, wrong, seed=4) for wrong in (0, 0.3))
    references, hypotheses = ([row[2] for row in rows] for rows in (said, heard))
    hypotheses[5] = ""
    for name in ("basic", "english", "danish", "verbatim"):
        score, rule = asr_nb.wer(references, hypotheses, normaliser=name), normaliser(name)
        texts = [[rule(text) for text in side] for side in (references, hypotheses)]
        words = jiwer.process_words(*texts)
        assert score.wer.value == pytest.approx(words.wer, abs=1e-12)
        assert score.cer.value == pytest.approx(jiwer.cer(*texts), abs=1e-12)
        assert score.counts == {kind: getattr(words, kind) for kind in score.counts}
        each = [jiwer.wer(*pair) for pair in zip(*texts, strict=True)]
        mean = score.rates["mean_utterance_wer"].value
        assert mean == pytest.approx(np.mean(each), abs=1e-12)


def sclite(folder: Path, *words: str) -> str:
    """The alignments of sclite, as text."""
    done = subprocess.run(
        [SCLITE, *words, "-e", "utf-8", "-o", "pralign", "stdout"],
        cwd=folder, capture_output=True, text=True, timeout=60, check=True,
    )  # fmt: skip
    return done.stdout


def errors_in(pralign: str) -> tuple[int, int]:
    """The words of the reference and the errors that sclite counts."""
    rows = re.findall(r"^Scores: \(#C #S #D #I\) (\d+) (\d+) (\d+) (\d+)", pralign, re.M)
    hits, substitutions, deletions, insertions = np.array(rows, int).sum(0)
    return hits + substitutions + deletions, substitutions + deletions + insertions


def texts_in(pralign: str) -> dict[str, list[str]]:
    """What sclite read as the hypotheses of each speaker, in their order."""
    texts: dict[str, list[str]] = {}
    for speaker, line in re.findall(r"^id: \(([^)]+)-\d+\)\n(?:.+\n)*?HYP: (.*)$", pralign, re.M):
        words = [word.lower() for word in line.split() if set(word) != {"*"}]
        texts.setdefault(speaker, []).append(" ".join(words))
    return texts


def counted(values: Mapping[str, int]) -> tuple[int, int]:
    reference = values["hits"] + values["substitutions"] + values["deletions"]
    return reference, values["substitutions"] + values["deletions"] + values["insertions"]


@pytest.mark.skipif(not SCLITE.exists(), reason="sctk is not installed")
@pytest.mark.parametrize("seed", range(3))
def test_the_figures_are_those_of_sclite(seed: int, tmp_path: Path) -> None:
    """Few errors: there both ways to align find the same number of them."""
    said, heard = (sentences(200, wrong, seed) for wrong in (0, 0.1))
    paths = written(tmp_path, ref=("trn", said), hyp=("trn", heard))
    ours = report_json(report_of(paths, normaliser="verbatim"))["systems"]["hyp"]["counts"]
    theirs = sclite(tmp_path, "-r", "ref.trn", "trn", "-h", "hyp.trn", "trn", "-i", "spu_id")
    assert counted(ours) == errors_in(theirs)


@pytest.mark.skipif(not SCLITE.exists(), reason="sctk is not installed")
@pytest.mark.parametrize("seed", range(12))
def test_words_go_to_the_segments_that_sclite_gives_them_to(seed: int, tmp_path: Path) -> None:
    """Gaps between segments, ignored segments, words across a boundary, two channels."""
    generator, segments, words = random.Random(seed), [], []
    for channel in "AB":
        time = 0.0
        for n in range(60):
            begin = time + generator.choice((0, 0, 1.5))
            time = begin + generator.uniform(0.5, 3)
            said = generator.choices(WORDS, k=generator.randint(1, 6))
            ignored = generator.random() < 0.15 and n
            text = "IGNORE_TIME_SEGMENT_IN_SCORING" if ignored else " ".join(said)
            segments.append(f"call {channel} p{n % 5} {begin:.2f} {time:.2f} <o> {text}")
            at = begin
            for word in said:
                at += generator.uniform(0.02, (time - begin) / len(said))
                words.append(f"call {channel} {at:.2f} {generator.uniform(0, 0.5):.2f} {word}")
            if generator.random() < 0.2:
                words.append(f"call {channel} {time + 0.4:.2f} 0.20 og")
        words.sort(key=lambda line: (line.split()[1], float(line.split()[2])))
    for name, lines in (("r.stm", segments), ("h.ctm", words)):
        (tmp_path / name).write_text("\n".join(lines) + "\n", encoding="utf-8")
    report = report_of([tmp_path / "r.stm", tmp_path / "h.ctm"], normaliser="verbatim")
    ours: dict[str, list[str]] = {}
    for row in report.scores["h"].predictions:
        ours.setdefault(row.speaker, []).append(row.hypothesis)
    assert ours == texts_in(sclite(tmp_path, "-r", "r.stm", "stm", "-h", "h.ctm", "ctm"))
    assert any("ignored segments left out" in note for note in report.notes)


def manifest(rows: Rows, heard: Rows) -> str:
    """As the Open ASR Leaderboard writes it."""
    return "".join(
        json.dumps({
            "audio_filepath": f"sample_{n}", "duration": row[3], "time": 0.1,
            "text": row[2], "pred_text": other[2],
        }) + "\n"
        for n, (row, other) in enumerate(zip(rows, heard, strict=True))
    )  # fmt: skip


def test_manifests_with_both_sides(tmp_path: Path) -> None:
    """One is a system; a second one is held against it if its references are the same."""
    said, one, two = (sentences(60, wrong) for wrong in (0, 0.2, 0.1))
    for name, heard in (("small", one), ("large", two)):
        (tmp_path / f"{name}.jsonl").write_text(manifest(said, heard), encoding="utf-8")
    alone = report_of([tmp_path / "small.jsonl"])
    both = report_of([tmp_path / "small.jsonl", tmp_path / "large.jsonl"])
    assert list(alone.scores) == ["small"] and list(both.scores) == ["small", "large"]
    assert alone.scores["small"].counts == both.scores["small"].counts
    other = manifest(sentences(60, seed=9), two)
    (tmp_path / "large.jsonl").write_text(other, encoding="utf-8")
    with pytest.raises(BadInput, match="its text is another than the reference in 60 utterances"):
        report_of([tmp_path / "small.jsonl", tmp_path / "large.jsonl"])


@pytest.mark.skipif("leaderboard_english" not in normalisers(), reason="not there yet")
def test_the_normaliser_of_the_leaderboard(tmp_path: Path) -> None:
    pytest.importorskip("whisper_normalizer")
    rows = [("1", "", "Mr. Brown's colour", 1.0)]
    heard = [("1", "", "mister brown's color", 1.0)]
    (tmp_path / "a.jsonl").write_text(manifest(rows, heard), encoding="utf-8")
    report = report_of([tmp_path / "a.jsonl"], normaliser="leaderboard_english")
    assert report.scores["a"].wer.value == 0


GOOD = "hej du der (1)\nhvad så (2)\n"
REFUSED = {
    "an id that only the reference has": (
        {"r.trn": GOOD, "h.trn": "hej (1)\n"}, "lacks 1 of 2 utterances, '2' first; .*--missing"),
    "an id that only the hypothesis has": (
        {"r.trn": GOOD, "h.trn": GOOD + "ja (3)\n"}, "h.trn: r.trn lacks 1 of its 3 ids, '3'"),
    "an id twice": ({"r.trn": GOOD, "h.trn": GOOD + "ja (1)\n"}, "h.trn line 3: '1' stands on"),
    "lines that slipped": ({"r.txt": "a\nb\n", "h.txt": "a\n"}, "h.txt: '1 lines' .*r.txt has 2"),
    "Latin-1": ({"r.trn": GOOD, "h.trn": GOOD.encode("latin-1")}, "h.trn line 2: byte 0xe5 is"),
    "UTF-16": ({"r.trn": GOOD, "h.trn": GOOD.encode("utf-16")}, "h.trn line 1: .*UTF-16; UTF-8"),
    "nothing": ({"r.trn": GOOD, "h.trn": ""}, "h.trn: it is empty"),
    "no such file": ({"r.trn": GOOD, "h.trn": None}, "h.trn: there is no such file"),
    "blank lines": ({"r.trn": GOOD, "h.trn": "\n \n"}, "h.trn: it is empty"),
    "no column": (
        {"r.csv": "id,words\n1,a\n", "h.csv": "id,text\n1,a\n"},
        "r.csv: it has no column for the reference; it has id, words; name one: --column ref"),
    "null": ({"r.jsonl": '{"id": "1", "text": "a"}', "h.jsonl": '{"id": "1", "text": null}'},
             "h.jsonl line 1: text is None"),
    "NaN": ({"r.jsonl": '{"id": "1", "text": "a"}', "h.jsonl": '{"id": "1", "text": NaN}'},
            "h.jsonl line 1: text is nan"),
    "a cell of NaN": ({"r.csv": "id,text\n1,a\n", "h.csv": "id,text\n1,nan\n"}, "line 2: text is"),
    "broken JSON": ({"r.trn": GOOD, "h.jsonl": '{"id": "1"'}, "h.jsonl line 1: .*no JSON"),
    "a value too many": ({"r.csv": "id,text\n1,a\n", "h.csv": "id,text\n1,a,b\n"}, "3 values"),
    "segments that overlap": (
        {"r.stm": "c A p 0 2 a\nc A p 1 3 b\n", "h.ctm": "c A 0 1 a\n"},
        "r.stm line 2: .*begins before line 1 ends"),
    "a channel without segments": (
        {"r.stm": "c A p 0 2 a\n", "h.ctm": "c B 0 1 a\n"}, "h.ctm line 1: 'c B'.*allowed: c a"),
    "a CTM without an STM": ({"r.trn": GOOD, "h.ctm": "c A 0 1 a\n"}, "r.trn: .*as STM"),
    "alternatives in a CTM": (
        {"r.stm": "c A p 0 2 a\n", "h.ctm": "c A * * <ALT_BEGIN>\n"}, "h.ctm line 1: .*keep one"),
    "alternatives in a trn": (
        {"r.trn": "hej { du / der } (1)\n", "h.trn": "hej (1)\n"}, "r.trn line 1: .*write one"),
    "alternatives in an STM": (
        {"r.stm": "c A p 0 2 { a / b }\n", "h.ctm": "c A 0 1 a\n"}, "r.stm line 1: .*write one"),
    "an end before its begin": ({"r.stm": "c A p 2 1 a\n", "h.ctm": "c A 0 1 a\n"}, "stm line 1"),
    "a duration of 1e999": (
        {"r.jsonl": '{"id": "1", "text": "a", "duration": 1e999}', "h.trn": "a (1)"}, "in seconds"),
    "ids on one side": ({"r.trn": GOOD, "h.txt": "a\nb\n"}, "h.txt: it has no ids; r.trn has some"),
    "a file twice": ({"r.trn": GOOD, "h.trn": GOOD, "./h.trn": None}, "each file may come once"),
}  # fmt: skip


@pytest.mark.parametrize("what", REFUSED)
def test_what_can_not_be_read_is_named(
    what: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    files, problem = REFUSED[what]
    for name, data in files.items():
        if data is not None:
            Path(name).write_bytes(data.encode() if isinstance(data, str) else data)
    with pytest.raises(BadInput) as error:
        report_of(list(files))
    text = str(error.value)
    assert re.search(problem, text) and "\n" not in text, text
    assert re.search(r": [^;]+; .", text), "field, what is wrong, what is allowed"


def test_what_is_missing_can_count_as_empty(tmp_path: Path) -> None:
    (tmp_path / "r.trn").write_text(GOOD, encoding="utf-8")
    (tmp_path / "h.trn").write_text("hej du der (1)\n", encoding="utf-8")
    report = report_of([tmp_path / "r.trn", tmp_path / "h.trn"], options=Options(missing="empty"))
    assert report.scores["h"].counts["deletions"] == 2
    assert any("1 utterances without a hypothesis count as empty" in n for n in report.notes)


def test_endings_of_lines_and_blanks_do_not_count(tmp_path: Path) -> None:
    (tmp_path / "r.trn").write_bytes(b"\xef\xbb\xbfhej du der  (1)  \r\n\r\nhvad nu\t(2)\r\n")
    (tmp_path / "h.trn").write_bytes(b"hej du der (1)\nhvad nu (2)")
    report = report_of([tmp_path / "r.trn", tmp_path / "h.trn"])
    assert report.scores["h"].counts == {
        "hits": 5, "substitutions": 0, "deletions": 0, "insertions": 0,
    }  # fmt: skip


def test_the_command(tmp_path: Path) -> None:
    """Text, JSON and a page; a refusal is one line and exit code 2."""
    said, one, two = (sentences(140, wrong) for wrong in (0, 0.3, 0.1))
    paths = written(tmp_path, ref=("csv", said), one=("trn", one), two=("jsonl", two))
    names = [path.name for path in paths]
    page = tmp_path / "report.html"
    text = command("score", *names, "--language", "da", "--html", page, cwd=tmp_path)
    assert (text.code, text.err) == (0, ""), text.err
    assert "Normaliser: danish, of the language da." in text.out and "two is better" in text.out
    html = page.read_text("utf-8")
    assert "two is better" in html and "http" not in html.replace("http-equiv", "")
    values = command("score", *names, "--json", "--by", "speaker", cwd=tmp_path)
    assert math.isfinite(json.loads(values.out)["systems"]["one"]["wer"]["value"])
    assert len(json.loads(values.out)["slices"]) == 7
    refused = command("score", *names, "--format", "tnr", cwd=tmp_path)
    assert refused.code == 2 and refused.err.count("\n") == 1 and "did you mean trn" in refused.err


def test_text_needs_neither_torch_nor_pandas_nor_matplotlib(tmp_path: Path) -> None:
    for name in ("r.trn", "h.trn"):
        (tmp_path / name).write_text(GOOD, encoding="utf-8")
    code = (
        "import sys; sys.argv = ['asr-nb', 'score', 'r.trn', 'h.trn', '--worst', '1']\n"
        "from asr_nb.cli import main\ntry:\n    main()\nfinally:\n"
        "    heavy = 'torch', 'pandas', 'matplotlib', 'transformers', 'nbformat'\n"
        "    print([name for name in heavy if name in sys.modules])"
    )
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, env=environment, capture_output=True, text=True
    )
    assert done.stdout.splitlines()[-1] == "[]" and "WER" in done.stdout, done.stdout + done.stderr


def test_a_report_shows_every_script(tmp_path: Path) -> None:
    """Characters are counted where a language has no blanks, and right to left is no trouble."""
    for said, heard, language, rate in (
        ("今天天气很好", "今天天氣好", "zh", "CER"),
        ("مرحبا كيف حالك", "مرحبا حالك", "ar", "WER"),
        ("안녕하세요 반갑습니다", "안녕하세요", "ko", "CER"),
    ):
        (tmp_path / "r.txt").write_text(f"{said}\n" * 3, encoding="utf-8")
        (tmp_path / "h.txt").write_text(f"{heard}\n" * 3, encoding="utf-8")
        paths = [tmp_path / "r.txt", tmp_path / "h.txt"]
        text = report_text(report_of(paths, options=Options(language=language)))
        assert f"  {rate}" in text and "−" in text
