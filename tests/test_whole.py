"""Whole runs on the embedded default: honest reports, the same figures, kills that cost nothing."""

import hashlib
import json
import os
import signal
import shutil
import subprocess
import time
from pathlib import Path

import nbformat
import pytest
from conftest import ASR_NB, ROOT, command, result, run_folders

STAGES = [
    "prepare",
    "baseline-micro",
    "train-micro-toy-full",
    "evaluate-micro-toy-full",
    "audit",
    "card",
]
KILLED = """
name: killed
question: Does a killed run go on to the same bits?
corpus:
  {name: da_phone, source: synthetic, language: da,
   options: {channel: phone, train: 24, dev: 4, test: 4, seed: 1}}
models: [micro]
recipes:
  - {name: short, base: lora-all, steps: 40, evaluations: 4, batch_size: 4, spec_augment: true}
"""


def files(folder: Path) -> dict[str, str]:
    return {
        p.relative_to(folder).as_posix(): hashlib.sha256(p.read_bytes()).hexdigest()
        for p in sorted(folder.rglob("*"))
        if p.is_file() and p.name != ".lock"
    }


def metrics(root: Path) -> dict[str, dict]:
    return {name: result(folder)["metrics"] for name, folder in run_folders(root).items()}


def test_every_stage_finishes_with_an_honest_report(toy: Path) -> None:
    folders = run_folders(toy)
    assert list(folders) == sorted(STAGES)
    for name, folder in folders.items():
        stage = name.split("-")[0]
        notebook = nbformat.read(folder / f"{stage}.ipynb", as_version=4)
        nbformat.validate(notebook)
        assert all(
            cell.execution_count
            for cell in notebook.cells
            if cell.cell_type == "code" and cell.source.strip()
        )
        shown = [
            o.data["application/vnd.asr-nb+json"]
            for cell in notebook.cells
            for o in cell.get("outputs", [])
            if "application/vnd.asr-nb+json" in o.get("data", {})
        ]
        assert shown == [result(folder)] and shown[0]["status"] == "finished"
        text = nbformat.writes(notebook)
        assert (
            "DID NOT FINISH" not in text and str(toy.parent) not in text and str(ROOT) not in text
        )
        assert not [
            o
            for cell in notebook.cells
            for o in cell.get("outputs", [])
            if o.get("name") == "stderr"
        ]


def test_the_record_says_what_the_predictions_say(toy: Path) -> None:
    from asr_nb.evaluation.decoding import read_predictions
    from asr_nb.evaluation.summary import summarise
    from asr_nb.preprocessing.text.normalisers import normaliser

    folder = run_folders(toy)["evaluate-micro-toy-full"]
    rows = [
        row for row in read_predictions(folder / "predictions.jsonl") if row.test_set == "da_phone"
    ]
    found = summarise(rows, "target", normaliser("basic"))["wer"]
    kept = result(folder)["metrics"]["da_phone.wer"]
    assert (kept["value"], kept["low"], kept["high"]) == (found.value, found.low, found.high)
    assert len(rows) == kept["n"] == 12


def test_what_the_encoder_made_is_read_again_and_changes_nothing(toy: Path, tmp_path: Path) -> None:
    from asr_nb.models.family import Decoding, load
    from asr_nb.runs.record import RunInProgress
    from asr_nb.runs.decodes import decode_one

    heard, counts = [], []
    for number, (keep, beams) in enumerate(
        ((False, 1), (True, 1), (True, 1), (True, 2), (False, 2))
    ):
        (tmp_path / str(number)).mkdir()
        run = RunInProgress("baseline", tmp_path / str(number))
        heard.append(
            decode_one(
                "da_phone",
                load("micro"),
                run_folders(toy)["prepare"],
                Decoding(beams=beams),
                run,
                keep_states=keep,
            )
        )
        counts.append(run.inputs.get("encoder_states"))
    assert heard[0] == heard[1] == heard[2] and heard[3] == heard[4]
    assert counts[0] is counts[4] is None and counts[1] == {"read_again": 0, "computed": 12}
    assert (
        counts[2]["computed"] == counts[3]["computed"] == 0
        and min(counts[2]["read_again"], counts[3]["read_again"]) >= 12
    )


def test_a_second_call_changes_nothing(toy: Path) -> None:
    before = files(toy)
    said = command("run", "toy", "--out", toy.parent)
    assert said.code == 0, said.err
    assert files(toy) == before


def test_the_same_figures_to_the_last_digit(toy: Path, tmp_path: Path) -> None:
    """Again, with every process and every kernel started cold; the toy's were forked."""
    answer = command("run", "toy", "--out", tmp_path, ASR_NB_FORK="0")
    assert answer.code == 0, answer.err
    assert metrics(tmp_path / "toy") == metrics(toy)
    for name, folder in run_folders(toy).items():
        if (folder / "predictions.jsonl").exists():
            other = run_folders(tmp_path / "toy")[name]
            assert (folder / "predictions.jsonl").read_bytes() == (
                other / "predictions.jsonl"
            ).read_bytes()


def test_what_is_lost_is_made_again(toy: Path, tmp_path: Path) -> None:
    shutil.copytree(toy, tmp_path / "toy")
    card = run_folders(tmp_path / "toy")["card"]
    next(card.glob("train-*.md")).unlink()
    evaluated = run_folders(tmp_path / "toy")["evaluate-micro-toy-full"] / "predictions.jsonl"
    honest = evaluated.read_bytes()
    evaluated.write_bytes(honest.replace(b'"hypothesis":"', b'"hypothesis":"forged ', 1))
    said = command("run", "toy", "--out", tmp_path)
    assert said.code == 0 and "finished evaluate" in said.err and "skipped  train" in said.err, (
        said.err
    )
    assert len(list(card.glob("train-*.md"))) == 1
    assert evaluated.read_bytes() == honest, "what was altered is decoded anew, not taken over"


def test_compare_labbook_card_and_status(toy: Path) -> None:
    folders = run_folders(toy)
    said = command("compare", folders["baseline-micro"], folders["evaluate-micro-toy-full"])
    assert said.code == 0, said.err
    refused = command("compare", folders["baseline-micro"], folders["train-micro-toy-full"])
    assert refused.code == 2 and "finished run with predictions" in refused.err
    said = command("labbook", toy.parent)
    assert said.code == 0, said.err
    page = Path(said.out.strip().splitlines()[-1].split(": ")[-1]).read_text("utf-8")
    assert (
        "<script" not in page
        and "http://" not in page.replace("http://www.w3.org", "")
        and "da_phone" in page
    )
    said = command("card", folders["train-micro-toy-full"])
    assert said.code == 0 and "## Limits" in (
        folders["train-micro-toy-full"] / "card.md"
    ).read_text("utf-8")
    assert "train-micro-toy-full" in command("status", toy.parent).out


def test_build_micro_at_toy_size(tmp_path: Path) -> None:
    from asr_nb.runs.notebook import execute

    small = {"english": 16, "phone": 4, "danish": 4, "steps": 4, "test": 6, "workers": 1}
    ending = execute(
        ROOT / "nbs/lab/build_micro.ipynb",
        tmp_path / "run",
        {
            "stage": "build_micro",
            "experiment": "lab",
            "run": "run",
            "parameters": small,
            "upstream": [],
        },
    )
    assert ending.status == "finished", ending.reason
    assert (tmp_path / "run" / "model" / "model.safetensors").exists()


def test_a_run_that_fails_keeps_its_report_and_says_why(tmp_path: Path) -> None:
    (tmp_path / "hot.yaml").write_text(
        KILLED.replace("killed", "hot").replace("spec_augment: true", "learning_rate: 1.0e+30")
    )
    said = command("run", "hot.yaml", "--out", "runs", cwd=tmp_path)
    assert said.code == 1, said.err
    folder = run_folders(tmp_path / "runs" / "hot")["train-micro-short"]
    assert result(folder)["status"] == "failed"
    notebook = nbformat.read(folder / "train.ipynb", as_version=4)
    assert "RUN DID NOT FINISH" in notebook.cells[0].source and "step" in notebook.cells[0].source
    assert (
        "blocked" in said.err
        and result(run_folders(tmp_path / "runs" / "hot")["baseline-micro"])["status"] == "finished"
    )
    rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    assert rows, "what was measured before it failed is kept"


def test_a_failed_recipe_leaves_the_others_their_audit_and_card(tmp_path: Path) -> None:
    recipes = """
  - {name: cool, base: full, steps: 4, evaluations: 2}
  - {name: hot, base: full, steps: 4, evaluations: 2, learning_rate: 1.0e+30}
  - {name: warm, base: full, steps: 3, evaluations: 1}
"""
    text = KILLED[: KILLED.index("recipes:")].replace("killed", "half") + "recipes:" + recipes
    (tmp_path / "half.yaml").write_text(
        text + "witnesses: [{name: sphinx, family: external, source: pocketsphinx}]\n"
    )
    said = command("run", "half.yaml", "--out", "runs", cwd=tmp_path)
    folders = run_folders(tmp_path / "runs" / "half")
    assert said.code == 1 and result(folders["train-micro-hot"])["status"] == "failed", said.err
    audit, card = result(folders["audit"]), result(folders["card"])
    assert (audit["status"], card["status"]) == ("finished", "finished"), said.err
    assert {path.name.rsplit("-", 1)[0] for path in folders["card"].glob("train-*.md")} == {
        "train-micro-cool",
        "train-micro-warm",
    }
    assert {
        name.split(".", 1)[1] for name in audit["metrics"] if name.endswith("unsupported_spans")
    } == {"micro.cool.unsupported_spans", "micro.warm.unsupported_spans"}
    assert [name.rsplit("-", 1)[0] for name in audit["inputs"]["missing"]] == ["evaluate-micro-hot"]
    warnings = " ".join(audit["warnings"])
    assert (
        "did not finish: evaluate-micro-hot" in warnings
        and "sphinx is no witness on da_phone" in warnings
    )
    assert warnings.count("weak evidence") == 1
    todo = command("plan", "half.yaml", "--out", "runs", cwd=tmp_path).out
    assert [
        line.split()[0].rsplit("-", 1)[0]
        for line in todo.splitlines()
        if " to do" in line and line.startswith("  ")
    ] == ["train-micro-hot", "evaluate-micro-hot", "audit", "card"]


def weights(root: Path) -> str:
    folder = run_folders(root)["train-micro-short"]
    return hashlib.sha256((folder / "model" / "adapter_model.safetensors").read_bytes()).hexdigest()


@pytest.mark.parametrize("after", ["step 17", "evaluate"])
def test_a_killed_run_goes_on_to_the_same_bits(tmp_path: Path, after: str, whole: Path) -> None:
    (tmp_path / "killed.yaml").write_text(KILLED)
    words = [ASR_NB, "run", "killed.yaml", "--stage", "evaluate", "--out", "runs"]
    child = subprocess.Popen(
        words,
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        start_new_session=True,
        stderr=subprocess.DEVNULL,
    )
    root, deadline = tmp_path / "runs" / "killed", time.monotonic() + 240
    while time.monotonic() < deadline and child.poll() is None and not reached(root, after):
        time.sleep(0.05)
    assert child.poll() is None, "it ended before it could be killed"
    os.kill(child.pid, signal.SIGKILL)
    child.wait()
    time.sleep(3)
    assert (
        command("run", "killed.yaml", "--stage", "evaluate", "--out", "runs", cwd=tmp_path).code
        == 0
    )
    assert weights(root) == weights(whole)
    assert metrics(root) == metrics(whole)


def reached(root: Path, what: str) -> bool:
    if what == "evaluate":
        return any(root.glob("evaluate-*/run.json"))
    lines = [
        line
        for path in root.glob("train-*/metrics.jsonl")
        for line in path.read_text().splitlines()
    ]
    return any(f'"step":{what.split()[1]}' in line for line in lines)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The experiment of the kill tests, uninterrupted."""
    place = tmp_path_factory.mktemp("whole")
    (place / "killed.yaml").write_text(KILLED)
    assert (
        command("run", "killed.yaml", "--stage", "evaluate", "--out", "runs", cwd=place).code == 0
    )
    return place / "runs" / "killed"
