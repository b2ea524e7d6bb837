"""What the package is extended by: each new part is one module and one line in its registry, and is
then found everywhere."""

import dataclasses
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from asr_nb.checks import BadInput
from asr_nb.preprocessing.corpus.utterances import Ledger
from asr_nb.preprocessing.sources import registry
from asr_nb.preprocessing.store import steps
from asr_nb.preprocessing.store.prepared import prepare_set
from asr_nb.publishing.card import card_of
from asr_nb.runs.budget import expected_size
from asr_nb.runs.experiment import load_experiment, write_experiment
from asr_nb.runs.plan import plan_runs, training_utterances
from asr_nb.runs.record import Record

BEEPS = '''
"""A source that nobody ships: beeps, listed in a file."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from asr_nb.preprocessing.corpus.admission import Criteria
from asr_nb.preprocessing.corpus.utterances import Utterance
from asr_nb.preprocessing.sound.audio import SAMPLING_RATE, encode
from asr_nb.preprocessing.sources.source import OpenSource, Source


@dataclass(frozen=True)
class BeepOptions:
    pitches: str  # a file with a line for each training beep
    repository: str = ""
    train: int = 3
    workers: int = 1


def _open(language, options, ledger, base):
    lines = Path(base / options.pitches).read_text().split()
    time = np.arange(8_000) / SAMPLING_RATE
    sounds = [(0.3 * np.sin(2 * np.pi * float(line) * time)).astype(np.float32) for line in lines]
    rows = [
        Utterance(line, "beep", language, 0.5, encode(sound), split="train" if n else "test")
        for n, (line, sound) in enumerate(zip(lines, sounds))
    ]
    return OpenSource(rows, Criteria(), True)


SOURCE = Source(
    "beeps",
    BeepOptions,
    _open,
    pin=lambda options: {"repository": "me/pinned"},
    sizes=lambda options: {"train": options.train, "test": 1},
    clip_seconds=0.5,
    synthetic=True,
    languages=("en",),
    repository="repository",
    paths=("pitches",),
)
'''
EXPERIMENT = """
name: beeping
question: Can a source be added?
corpus: {name: beeps, source: beeps, language: en, options: {pitches: pitches.txt}}
models: [micro]
recipes: [full]
"""


@pytest.fixture
def beeps(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with an experiment on the source `beeps`: its module, and its line in the
    registry."""
    (tmp_path / "made_up_beeps.py").write_text(BEEPS)
    (tmp_path / "pitches.txt").write_text("300 400 500 600")
    (tmp_path / "beeping.yaml").write_text(EXPERIMENT)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setitem(registry.SOURCES, "beeps", "made_up_beeps")
    monkeypatch.delitem(sys.modules, "made_up_beeps", raising=False)
    return tmp_path


def test_a_source_is_found_by_the_plan(beeps: Path) -> None:
    lab = load_experiment(beeps / "beeping.yaml")
    assert lab.corpus.options["pitches"] == str(beeps / "pitches.txt"), "a path starts at the YAML"
    assert training_utterances(lab, plan_runs(lab), beeps) == 3
    size = expected_size(lab.corpus, lab.models)
    assert (size.rows, size.seconds) == (4, 2.0)
    before = plan_runs(lab)[0].key
    (beeps / "pitches.txt").write_text("300 400 500 700")
    assert plan_runs(lab)[0].key != before, "the key covers what the path leads to"


def test_a_source_is_checked_by_the_plan(beeps: Path) -> None:
    for old, new, message in (
        ("{pitches: pitches.txt}", "{pitches: p, pitch: 3}", "did you mean pitches"),
        ("language: en", "language: da", "beeps.language: 'da' can't be used"),
        ("source: beeps", "source: beep", "did you mean beeps"),
    ):
        (beeps / "wrong.yaml").write_text(EXPERIMENT.replace(old, new))
        with pytest.raises(BadInput, match=message):
            plan_runs(load_experiment(beeps / "wrong.yaml"))


def test_a_source_is_prepared(beeps: Path) -> None:
    spec, ledger = load_experiment(beeps / "beeping.yaml").corpus, Ledger()
    options = registry.pin(spec.source, spec.options)
    assert options["repository"] == "me/pinned"
    opened = registry.open_rows(
        spec.source, spec.name, spec.language, options, ledger, spoken=True, workers=2
    )
    made, account = prepare_set(opened, [], beeps / "store" / "beeps", ledger)
    assert [row.split for row in made.utterances] == ["test", "train", "train", "train"]
    assert (account.rows, ledger.rows) == (4, [])


def test_a_source_is_named_in_the_card(beeps: Path) -> None:
    lab = load_experiment(beeps / "beeping.yaml")
    lab.corpus.options["repository"] = "me/beeps"
    inputs = {
        "model": {"name": "micro", "source": "micro", "revision": ""},
        "recipe": dataclasses.asdict(lab.recipe("full")),
    }
    run = Record("finished", "train", "beeping", "train-1", {"model": "micro", "recipe": "full"})
    run = Record(**{**vars(run), "inputs": inputs, "verdict": "Falling."})
    (beeps / "train-1").mkdir()
    (beeps / "train-1" / "result.json").write_text(run.to_json())
    write_experiment(lab, beeps / "experiment.yaml")
    head, body = card_of(beeps / "train-1").split("---", 2)[1:]
    assert yaml.safe_load(head)["datasets"] == ["me/beeps"]
    assert "beeps, nonspeech hold no speech by people" in body


def test_a_source_is_not_imported_before_it_is_asked_for() -> None:
    code = "import sys; from asr_nb.cli import app; print(*sys.modules)"
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert not {*registry.SOURCES.values(), *(kind.module for kind in steps.KINDS.values())} & set(
        ran.stdout.split()
    )


FADE = '''
"""A step that nobody ships: everything gets fainter."""

from dataclasses import dataclass
from typing import ClassVar


@dataclass(frozen=True)
class Fade:
    gain: float = 0.5
    kind: ClassVar[str] = "fade"
    version: ClassVar[int] = 1

    def apply(self, samples, generator):
        return samples * self.gain, {"gain": self.gain}


PRESETS = {"faint": Fade(0.1)}
'''


def test_a_step_is_one_module_and_one_line(beeps: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (beeps / "made_up_fade.py").write_text(FADE)
    monkeypatch.setitem(steps.KINDS, "fade", steps.Kind("made_up_fade", "Fade"))
    process = "options: {pitches: pitches.txt}, process: [{step: fade, preset: faint}]"
    text = EXPERIMENT.replace("options: {pitches: pitches.txt}", process)
    (beeps / "beeping.yaml").write_text(text)
    spec, ledger = load_experiment(beeps / "beeping.yaml").corpus, Ledger()
    opened = registry.open_rows(spec.source, spec.name, spec.language, spec.options, ledger)
    plan = steps.steps_from(spec.process)
    made, _ = prepare_set(opened, [], beeps / "store" / "beeps", ledger, plan)
    assert {row.audio_chain[0].split(":")[0] for row in made.utterances} == {"fade@1"}
    assert max(abs(made.samples("400"))) < 0.04
    assert steps.modules_of(plan) == ("made_up_fade",), "its code is in the names of shards"
