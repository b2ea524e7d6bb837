"""Is training worth it? What the gate says and does, from the experiment's file to the record of a
run that was forced."""

import json
from pathlib import Path

import golden
import pytest
from asr_nb.preprocessing.sources.nonspeech import SOUNDS
from asr_nb.runs.experiment import experiment_names, load_experiment, nonspeech_set, gaps
from conftest import command, result, run_folders

# The micro model transcribes clean English well, so there is nothing to gain; `twin` is the same
# model by another name.
SWEEP = """
name: sweep
question: Is it worth it to teach English to a model that knows it?
corpus:
  name: en_clean
  source: synthetic
  language: en
  options: {channel: clean, train: 12, dev: 12, test: 12, seed: 1}
models: [micro, {name: twin, source: %s}]
recipes: [{name: short, base: full, steps: 2, evaluations: 1, batch_size: 4}]
target: 0.3
probe_steps: 2
"""


@pytest.fixture(scope="module")
def swept(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder in which the untouched models of SWEEP were decoded and probed."""
    import asr_nb

    folder = tmp_path_factory.mktemp("sweep")
    (folder / "sweep.yaml").write_text(SWEEP % (Path(asr_nb.__file__).parent / "micro"))
    answer = command("run", "sweep.yaml", "--stage", "headroom", "--out", "runs", cwd=folder)
    assert answer.code == 0, answer.err
    return folder


def test_the_sweep_looks_at_dev_and_probes(swept: Path) -> None:
    folders = run_folders(swept / "runs" / "sweep")
    assert list(folders) == ["baseline-micro", "baseline-twin", "headroom", "prepare"]
    micro, headroom = result(folders["baseline-micro"]), result(folders["headroom"])
    assert (
        micro["metrics"]["en_clean.dev_wer"]["n"] == 12
        and "en_clean.dev.real_time_factor" in micro["timings"]
    )
    dev = [
        json.loads(line)["id"]
        for line in (folders["baseline-micro"] / "dev.jsonl").read_text().splitlines()
    ]
    test = [
        json.loads(line)["id"]
        for line in (folders["baseline-micro"] / "predictions.jsonl").read_text().splitlines()
    ]
    assert len(dev) == 12 and not set(dev) & set(test)
    assert [
        (one["model"], one["recipe"], one["steps"]) for one in headroom["inputs"]["probes"]
    ] == [("micro", "short", 2), ("twin", "short", 2)]
    assert headroom["verdict"] == "Worth training? micro with short: don't; twin with short: don't."
    assert not list(folders["headroom"].rglob("*.safetensors")), "a probe's weights are thrown away"
    assert (
        any("source" in text for text in micro["warnings"])
        and "nonspeech.words_per_minute" in micro["metrics"]
    )


def test_golden_result_of_the_headroom(swept: Path, renew_golden: bool) -> None:
    golden.check("headroom", run_folders(swept / "runs" / "sweep")["headroom"], renew_golden)


def test_plan_says_it_before_anything_is_trained(swept: Path, tmp_path: Path) -> None:
    answer = command("plan", "sweep.yaml", "--out", "runs", cwd=swept)
    assert (
        answer.code == 0
        and "micro with short: don't: it would not be trained, unless with --force" in answer.out
    )
    assert (
        "is not above the target of 30.0 %" in answer.out
        and "in 2 steps the loss went from" in answer.out
    )
    assert "nonspeech was added" in answer.out and "what is forgotten" in answer.out
    fresh = command("plan", "sweep.yaml", "--out", tmp_path, cwd=swept)
    assert "micro: not known yet" in fresh.out and "twin: not known yet" in fresh.out


@pytest.mark.parametrize(
    "line, words",
    [
        ("", "left alone up to 15.0 %, a prior for WER"),
        ("gate_threshold: 0.1", "left alone up to 10.0 %, the stated threshold"),
        ("target: 0.3", "target: 30.0 %"),
    ],
)
def test_plan_says_where_the_line_is(swept: Path, tmp_path: Path, line: str, words: str) -> None:
    text = (swept / "sweep.yaml").read_text().replace("target: 0.3", line)
    (tmp_path / "sweep.yaml").write_text(text)
    answer = command("plan", "sweep.yaml", cwd=tmp_path)
    assert answer.code == 0 and words in answer.out


def test_a_line_in_per_cent_is_refused(swept: Path, tmp_path: Path) -> None:
    text = (swept / "sweep.yaml").read_text().replace("target: 0.3", "gate_threshold: 15")
    (tmp_path / "sweep.yaml").write_text(text)
    answer = command("plan", "sweep.yaml", cwd=tmp_path)
    assert answer.code == 2 and "gate_threshold: 15" in answer.err


def test_what_is_not_worth_it_is_declined_and_can_be_forced(swept: Path) -> None:
    choice = "run", "sweep.yaml", "--stage", "train", "--model", "micro", "--out", "runs"
    answer = command(*choice, cwd=swept)
    line = next(
        line for line in answer.err.splitlines() if line.startswith("declined train-micro-short")
    )
    assert answer.code == 2 and "30.0 %" in line and "--force trains all the same" in line
    forced = command(*choice, "--force", cwd=swept)
    assert forced.code == 0, forced.err
    trained = run_folders(swept / "runs" / "sweep")["train-micro-short"]
    record = result(trained)
    decision = record["inputs"]["headroom"]
    assert (decision["word"], decision["forced"], len(decision["reasons"])) == ("don't", True, 4)
    assert any(
        text.startswith("trained by --force against the verdict") for text in record["warnings"]
    )
    answer = command("card", trained)
    text = (trained / "card.md").read_text("utf-8")
    assert (
        answer.code == 0
        and "(FORCED) against the advice: don't" in text
        and "trained by --force" in text
    )


def test_every_experiment_that_ships_has_clips_without_speech() -> None:
    for name in experiment_names():
        experiment = load_experiment(name)
        quiet = [spec for spec in experiment.sets if spec.role == "nonspeech"]
        assert len(quiet) == 1, name
        added = quiet[0] == nonspeech_set(quiet[0].name, experiment.corpus.language)
        assert added == any("was added" in line for line in gaps(experiment)), name


def test_silence_noise_tones_and_music_are_among_the_sounds() -> None:
    assert {"silence", "room noise", "hold tone", "chord"} <= set(SOUNDS)
