"""The results of the toy's stages are the stored ones, or their versions say that they changed.
`make golden` stores them."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import golden
import pytest
from asr_nb.runs.pipeline import STAGES, planned_stages
from conftest import run_folders

TOY = (
    "prepare",
    "baseline",
    "train",
    "evaluate",
    "audit",
    "card",
)  # headroom: see test_headroom.py


def folder_of(root: Path, stage: str) -> Path:
    return next(path for name, path in run_folders(root).items() if name.split("-")[0] == stage)


def test_golden_results_of_the_toy(toy: Path, renew_golden: bool) -> None:
    for stage in TOY:  # in their order: what changed in one of them changes the later ones
        golden.check(stage, folder_of(toy, stage), renew_golden)


def test_every_stage_has_a_stored_result() -> None:
    stored = {path.stem for path in golden.GOLDEN.glob("*.json")}
    assert stored == {stage.name for stage in planned_stages()} == {*TOY, "headroom"}


def refusal(stage: str, folder: Path, place: Path, renew: bool = False) -> str:
    try:
        golden.check(stage, folder, renew, place)
    except pytest.fail.Exception as failure:
        return str(failure)
    return ""


def test_a_change_without_a_version_is_detected_and_not_stored(
    toy: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place, run = tmp_path / "golden", tmp_path / "evaluate"
    shutil.copytree(golden.GOLDEN, place)
    shutil.copytree(folder_of(toy, "evaluate"), run)
    result = run / "result.json"
    record = json.loads(result.read_text())
    metric = record["metrics"]["da_phone.wer"]
    assert refusal("evaluate", run, place) == ""
    metric["value"] *= 1.0001
    result.write_text(json.dumps(record))
    assert refusal("evaluate", run, place) == "", "noise of another machine"
    metric["value"] *= 1.01
    result.write_text(json.dumps(record))
    for renew in False, True:
        line = refusal("evaluate", run, place, renew)
        assert "the result of the stage evaluate changed (/metrics/da_phone.wer/0" in line
        assert "raise its version" in line and "make golden" in line
    monkeypatch.setitem(STAGES, "train", replace(STAGES["train"], version=99))
    line = refusal("evaluate", run, place)
    assert "the stages are at" in line and "'train': 99" in line and "make golden" in line
    assert refusal("baseline", folder_of(toy, "baseline"), place) == "", "it reads no training"
    assert refusal("evaluate", run, place, renew=True) == refusal("evaluate", run, place) == ""


def test_a_text_that_changes_is_detected(toy: Path, tmp_path: Path) -> None:
    run = tmp_path / "baseline"
    shutil.copytree(folder_of(toy, "baseline"), run)
    file = run / "predictions.jsonl"
    file.write_bytes(file.read_bytes().replace(b'"hypothesis":"', b'"hypothesis":"so ', 1))
    assert "/more/predictions.jsonl" in refusal("baseline", run, golden.GOLDEN)
