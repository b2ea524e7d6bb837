"""A private corpus leaves no word, name or path in what is read or published: strings planted in it
are looked for everywhere.

The strings stand in the texts, the speaker, the call, a tag, the folder's and the files' names,
somebody else's transcripts, and in what a library prints and an exception says. All stages are run
once; then a run that fails.
"""

import base64
import json
import stat
from collections.abc import Iterator
from pathlib import Path

import nbformat
import pytest
from conftest import Answer, command, result, run_folders

CANARIES = (
    "quibblefrotz",
    "xanthippe",
    "snickersnee",
    "vorpalshire",
    "jabberwockery",
    "bandersnatch",
    "tumtumtree",
    "frumious",
)
TEXT, SPEAKER, CALL, TAG, FOLDER, FILE, WITNESS, BROKEN = CANARIES
YAML = f"""
name: NAME
question: Does a private corpus stay private?
corpus:
  name: calls
  source: folder
  language: en
  privacy: private
  options:
    path: {FOLDER}
    columns:
      {{audio: file, text: text, speaker: speaker, recording: call, split: split, dialect: dialect}}
    max_quarantine: SHARE
tests:
  - {{name: noise, role: nonspeech, source: nonspeech, language: en, options: {{each: 1, seed: 3}}}}
models: [micro]
witnesses:
  - {{name: theirs, family: external, source: "transcripts:{FOLDER}/{WITNESS}.jsonl"}}
  - {{name: others, family: external, source: "transcripts:{FOLDER}/{WITNESS}-all.jsonl"}}
recipes: [{{name: short, base: full, steps: 3, evaluations: 1, batch_size: 4}}]
"""
ROWS = ("train", "train", "train", "train", "dev", "test", "test", "test")


def plant(folder: Path) -> None:
    """A folder of calls: eight that can be used, one that can't, one that stands in the manifest
    alone, and a line that is none."""
    from asr_nb.preprocessing.sources.synthetic import utterances

    folder.mkdir()
    spoken = list(
        utterances(
            "en", {"channel": "clean", "train": 4, "dev": 1, "test": 3, "seed": 5, "workers": 1}
        )
    )
    rows = []
    for n, (split, clip) in enumerate(zip(ROWS, spoken, strict=True)):
        (folder / f"{FILE}-{n}.flac").write_bytes(clip.audio)
        rows.append(
            {
                "file": f"{FILE}-{n}.flac",
                "text": f"{clip.text} {TEXT}",
                "split": split,
                "dialect": TAG,
                "speaker": f"{SPEAKER}-{n % 3}",
                "call": f"{CALL}-{n % 4}",
            }
        )
    (folder / f"{BROKEN}.flac").write_bytes(b"fLaC" + bytes(100))
    rows += [{**rows[0], "file": f"{BROKEN}.flac"}, {**rows[0], "file": f"{FILE}-missing.flac"}]
    lines = [json.dumps(row) for row in rows] + [f'{{"file": "{FILE}-cut.flac", "text": "{TEXT}']
    (folder / "manifest.jsonl").write_text("\n".join(lines) + "\n")
    transcripts = [
        json.dumps({"id": f"{FILE}-{n}.flac", "text": f"{WITNESS} {rows[n]['text']}"}) + "\n"
        for n in (5, 6, 7)
    ]
    (folder / f"{WITNESS}-all.jsonl").write_text("".join(transcripts))
    (folder / f"{WITNESS}.jsonl").write_text("".join(transcripts[:2]))


def found_in(text: str | bytes, strings: tuple[str, ...] = CANARIES) -> set[str]:
    text = text.lower() if isinstance(text, bytes) else text.encode().lower()
    return {string for string in strings if string.lower().encode() in text}


def pictures(path: Path) -> Iterator[bytes]:
    """The images in a notebook, as files."""
    for cell in nbformat.read(path, as_version=4).cells:
        for output in cell.get("outputs", []):
            yield from (
                base64.b64decode(data)
                for mime, data in output.get("data", {}).items()
                if mime == "image/png"
            )


def leaks(root: Path, strings: tuple[str, ...] = CANARIES) -> list[str]:
    """Where outside the private folders one of the strings stands: in a file, a picture or a
    name."""
    where = []
    for path in sorted(root.rglob("*")):
        place = path.relative_to(root)
        if "private" in place.parts:
            continue
        contents = [str(place), *([path.read_bytes()] if path.is_file() else [])]
        contents += pictures(path) if path.suffix == ".ipynb" else []
        where += [
            f"{place}: {string}" for content in contents for string in found_in(content, strings)
        ]
    return where


@pytest.fixture(scope="module")
def calls(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[Answer]]:
    """The folder of the private experiment after the whole way, and what the commands answered."""
    place = tmp_path_factory.mktemp("privacy")
    plant(place / FOLDER)
    (place / "calls.yaml").write_text(YAML.replace("NAME", "calls").replace("SHARE", "0.5"))
    first = command(
        "run", "calls.yaml", "--out", "runs", "--force", "-p", "keep_states=true", cwd=place
    )  # --force: the micro model is good at it already
    assert first.code == 0, first.err
    folders = run_folders(place / "runs" / "calls")
    answers = [
        first,
        command("plan", "calls.yaml", "--out", "runs", cwd=place),
        command("status", "runs", cwd=place),
        command("compare", folders["baseline-micro"], folders["evaluate-micro-short"], cwd=place),
        command("card", folders["train-micro-short"], cwd=place),
        command("labbook", "runs", cwd=place),
    ]
    assert not any(one.code for one in answers), [one.err for one in answers if one.code]
    return place / "runs" / "calls", answers


def test_no_word_or_name_leaves_the_private_folders(calls: tuple[Path, list[Answer]]) -> None:
    root, answers = calls
    assert leaks(root.parent) == []
    assert [found_in(one.out + one.err) for one in answers] == [set()] * len(answers)
    kinds = {path.suffix for path in root.parent.rglob("*") if "private" not in path.parts}
    assert {".ipynb", ".json", ".jsonl", ".html", ".md", ".yaml"} <= kinds, (
        "the search had something to look at"
    )


def test_no_utterance_is_shown(calls: tuple[Path, list[Answer]]) -> None:
    from asr_nb.evaluation.decoding import read_predictions

    root, _ = calls
    rows = [
        row
        for path in root.glob("*/private/*.jsonl")
        if path.name != "quarantine.jsonl"
        for row in read_predictions(path)
    ]
    texts = {
        text
        for row in rows
        for text in (row.reference, row.hypothesis.strip(), row.id)
        if len(text) > 9
    }
    assert len(texts) > 6
    assert leaks(root.parent, tuple(texts)) == []
    for path in root.glob("*/*.ipynb"):
        outputs = [
            o for cell in nbformat.read(path, as_version=4).cells for o in cell.get("outputs", [])
        ]
        assert outputs and not [o for o in outputs if o.output_type == "stream"]
        assert {mime.split("/")[0] for o in outputs for mime in o.data} <= {
            "text",
            "image",
            "application",
        }
        assert "<audio" not in path.read_text(encoding="utf-8")


def test_the_search_would_find_them(calls: tuple[Path, list[Answer]]) -> None:
    root, _ = calls
    hidden = [
        path
        for path in root.rglob("*")
        if "private" in path.relative_to(root).parts and path.is_file()
    ]
    assert set.union(*(found_in(path.read_bytes()) for path in hidden)) >= {
        TEXT,
        SPEAKER,
        CALL,
        TAG,
        FOLDER,
        FILE,
        WITNESS,
        BROKEN,
    }
    copy = root.parent / "leak.md"
    copy.write_text(f"Said in {FILE}-3.flac")
    assert leaks(root.parent) == [f"leak.md: {FILE}"]
    copy.unlink()


def test_the_private_folder_is_closed_ignored_and_named(calls: tuple[Path, list[Answer]]) -> None:
    root, _ = calls
    folders = [path for path in root.rglob("private") if path.is_dir()]
    assert {path.parent.name.split("-")[0] for path in folders} >= {
        "calls",
        "prepare",
        "baseline",
        "evaluate",
        "audit",
    }
    for folder in folders:
        assert (
            stat.S_IMODE(folder.stat().st_mode) == 0o700
            and (folder / ".gitignore").read_text() == "*\n"
        )
    for name, folder in run_folders(root).items():
        assert "private" in result(folder)["inputs"]["privacy"], name
    assert not list(root.glob("*/predictions.jsonl")) and not list(root.glob("*/store"))
    assert {path.parent.name for path in root.rglob("states")} == {"private"}, (
        "what the encoder made is as private as the sound"
    )
    (card,) = root.glob("card-*/train-*.md")
    assert (
        "private" in card.read_text()
        and "predictions" not in card.read_text()
        and "sha256" not in card.read_text()
    )


def test_the_ledger_has_salted_ids_and_reasons(calls: tuple[Path, list[Answer]]) -> None:
    from asr_nb.runs.privacy import place_in_run, redactor_of

    root, _ = calls
    folder = run_folders(root)["prepare"]
    public, whole = (
        [json.loads(line) for line in path.read_text().splitlines()]
        for path in (folder / "quarantine.jsonl", place_in_run(folder, "quarantine.jsonl"))
    )
    assert sorted(row["reason"] for row in public) == [
        "audio_missing",
        "row_unreadable",
        "undecodable",
    ]
    assert [row["id"] for row in public] == [redactor_of(root).id(row["id"]) for row in whole]
    assert {row["detail"] for row in public} == {""} and found_in(json.dumps(whole)) >= {
        BROKEN,
        FILE,
    }


def test_a_witness_that_lacks_an_utterance_is_warned_of_without_its_name(
    calls: tuple[Path, list[Answer]],
) -> None:
    root, _ = calls
    record = result(run_folders(root)["audit"])
    assert any("theirs is no witness on calls: BadInput (" in text for text in record["warnings"])
    assert record["metrics"]["calls.micro.short.unsupported_spans"]["n"] == 3


def test_a_second_call_changes_nothing_and_a_clone_without_private_folders_counts_as_done(
    calls: tuple[Path, list[Answer]],
    tmp_path: Path,
) -> None:
    import shutil

    root, _ = calls
    shutil.copytree(
        root,
        tmp_path / "runs" / "calls",
        ignore=shutil.ignore_patterns("private", "model", ".lock"),
    )
    answer = command("run", "calls.yaml", "--out", tmp_path / "runs", cwd=root.parent.parent)
    assert (
        answer.code == 0
        and "finished before" in answer.err
        and "finished prepare" not in answer.err
    ), answer.err


def test_a_stage_that_fails_says_no_name_either(tmp_path: Path) -> None:
    plant(tmp_path / FOLDER)
    (tmp_path / "calls.yaml").write_text(YAML.replace("NAME", "calls").replace("SHARE", "0.01"))
    answer = command("run", "calls.yaml", "--out", "runs", "--stage", "prepare", cwd=tmp_path)
    (folder,) = (tmp_path / "runs" / "calls").glob("prepare-*")
    assert answer.code == 2 and "BadInput" in answer.err
    assert found_in(answer.out + answer.err) == set() and leaks(tmp_path / "runs") == []
    report = (folder / "prepare.ipynb").read_text(encoding="utf-8")
    assert (
        "DID NOT FINISH" in report and "BadInput" in report and result(folder)["status"] == "failed"
    )
    assert "max_quarantine" in (folder / "private" / "error.txt").read_text(), (
        "its owner can read what was wrong"
    )
    assert "private/error.txt" in answer.err


UNRULY = """
import os, sys, warnings
names = open("../../names.txt").read().split()
print(names[0])
warnings.warn(names[1])
sys.stderr.write(names[2])
os.write(1, names[3].encode())
raise ENDING
"""


@pytest.mark.parametrize("ending", ["ValueError(names[4])", "SystemExit(names[6])"])
def test_what_is_printed_or_raised_is_not_kept(tmp_path: Path, ending: str) -> None:
    from asr_nb.runs.notebook import execute

    root = tmp_path / "calls"
    root.mkdir()
    (tmp_path / "names.txt").write_text("\n".join(CANARIES))
    (root / "experiment.yaml").write_text("corpus: {name: calls, source: folder, privacy: private}")
    cells = [
        nbformat.v4.new_code_cell("experiment: str = ''", metadata={"tags": ["parameters"]}),
        nbformat.v4.new_code_cell(UNRULY.replace("ENDING", ending)),
    ]
    nbformat.write(nbformat.v4.new_notebook(cells=cells), tmp_path / "unruly.ipynb")
    outcome = execute(
        tmp_path / "unruly.ipynb",
        root / "run",
        {"stage": "unruly", "experiment": "calls", "run": "run", "parameters": {}},
    )
    assert outcome.status == "failed" and ending.split("(")[0] in outcome.reason
    assert found_in(outcome.reason) == set() and leaks(root) == []
    assert not list(root.glob("run/**/*.part.ipynb"))
    assert found_in((root / "run" / "private" / "error.txt").read_bytes()), (
        "its owner can read what was wrong"
    )


def test_what_the_plan_refuses_is_not_named(tmp_path: Path) -> None:
    text = YAML.replace("NAME", "calls").replace("SHARE", "0.5")
    plant(tmp_path / FOLDER)
    (tmp_path / "calls.yaml").write_text(text)
    for change, line in (
        (
            f"path: {FOLDER}\n",
            "calls.options.path: '(not shown)' can't be used; a file, or a folder",
        ),
        ("max_quarantine: 0.5", "calls.options.split"),
    ):
        new = f"path: {FOLDER}-elsewhere\n" if "path" in change else f"split: {TAG}"
        (tmp_path / "wrong.yaml").write_text(text.replace(change, new))
        answer = command("plan", "wrong.yaml", cwd=tmp_path)
        assert (answer.code, answer.out, answer.err.count("\n"), found_in(answer.err)) == (
            2,
            "",
            1,
            set(),
        ) and line in answer.err
    answer = command("run", "calls.yaml", "--engine", "ray", cwd=tmp_path)
    assert (
        answer.code == 2 and "private" in answer.err and not (tmp_path / "papermill_runs").exists()
    )
