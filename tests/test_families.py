"""A new family is a module and an entry in the registry: two made-up ones go the whole way, beside
pocketsphinx."""

import json
from pathlib import Path

import pytest
from conftest import ROOT, command, result, run_folders

FAMILY = """
"CTC by another name, and a recogniser that writes every reference backwards."
import numpy as np

from asr_nb.models import ctc
from asr_nb.models.family import Hypothesis
from asr_nb.preprocessing.store.examples import Reader


class Toy(ctc.CTC):
    name = "toy"


class Parrot:
    name, source, revision, fingerprint, model = "parrot", "polly", "7", "0123456789ab", None
    window_seconds, reader = 30.0, Reader("0123456789ab")

    def features(self, samples):
        return np.zeros(0, np.float32)

    def fits(self, text, language, seconds):
        pass

    def decode(self, examples, decoding):
        return [Hypothesis(example.text[::-1]) for example in examples]


def load(source, **choices):
    if source == "polly":
        return Parrot()
    recogniser = ctc.load(source, **choices)
    recogniser.__class__ = Toy
    return recogniser
"""
ENTRIES = """
from asr_nb.models.registry import FAMILIES, FamilySpec

FAMILIES["toy"] = FamilySpec("toy", "made_up")
FAMILIES["parrot"] = FamilySpec("parrot", "made_up", trainable=False, hub=False, wheels=("polly",))
"""
EXPERIMENT = """
name: made-up
question: Does a family that is not in the package go the whole way?
corpus:
  name: en_clean
  source: synthetic
  language: en
  options: {train: 12, dev: 2, test: 4, seed: 1}
tests:
  - name: nonspeech
    role: nonspeech
    source: nonspeech
    language: en
    options: {each: 1, seconds: [1.0, 1.0]}
models: [{name: tiny, family: toy, source: ./tiny}, pocketsphinx]
recipes: [{name: short, base: full, steps: 4, evaluations: 1, batch_size: 4, micro_batch: 2}]
witnesses: [{name: polly, family: parrot, source: polly}]
"""


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    "A folder with the experiment, weights, and the two places that make a family."
    from asr_nb.models.ctc import untrained

    folder = tmp_path_factory.mktemp("families")
    (folder / "python").mkdir()
    (folder / "python" / "made_up.py").write_text(FAMILY)
    (folder / "python" / "sitecustomize.py").write_text(ENTRIES)  # read by every Python process
    untrained(["abcdefghijklmnopqrstuvwxyz'"], seed=0).save(folder / "tiny")
    (folder / "made-up.yaml").write_text(EXPERIMENT)
    return folder


def environment(place: Path) -> dict[str, str]:
    return {"PYTHONPATH": f"{place / 'python'}:{ROOT}"}


def test_made_up_families_go_the_whole_way(place: Path) -> None:
    plan = command("plan", "made-up.yaml", "--out", "runs", cwd=place, **environment(place))
    assert plan.code == 0, plan.err
    for name in ("baseline-tiny-", "train-tiny-short-", "evaluate-tiny-short-"):
        assert name in plan.out
    assert "train-pocketsphinx" not in plan.out
    assert "pocketsphinx: no recipe trains it" in plan.out
    answer = command("run", "made-up.yaml", "--out", "runs", cwd=place, **environment(place))
    assert answer.code == 0, answer.err
    folders = run_folders(place / "runs" / "made-up")
    record = result(folders["train-tiny-short"])
    assert record["metrics"]["train.steps"]["value"] == 4
    assert record["inputs"]["model"]["source"] == "tiny", "the model's name, and no path"
    assert result(folders["baseline-pocketsphinx"])["metrics"]["en_clean.wer"]["n"] == 4
    witness = (folders["audit"] / "witness-polly.jsonl").read_text(encoding="utf-8").splitlines()
    rows = [row for row in map(json.loads, witness) if row["test_set"] == "en_clean"]
    assert len(rows) == 4 and all(row["hypothesis"] == row["reference"][::-1] for row in rows)
    assert "en_clean.tiny.short.unsupported_spans" in result(folders["audit"])["metrics"]
    assert result(folders["audit"])["inputs"]["polly.runtime"]["name"] == "polly 7"
    (card,) = (path.read_text("utf-8") for path in folders["card"].glob("train-tiny-*.md"))
    assert "tiny" in card and str(place) not in card
    book = command("labbook", "runs", cwd=place, **environment(place))
    assert book.code == 0, book.err
    page = (place / "runs" / "labbook.html").read_text(encoding="utf-8")
    assert "tiny short" in page and "pocketsphinx" in page


def test_without_its_entry_a_family_is_refused_by_name(place: Path) -> None:
    answer = command("plan", "made-up.yaml", cwd=place)
    needed = "models[0].family: 'toy' can't be used; allowed: ctc, external, whisper"
    assert answer.code == 2 and needed in answer.err


def test_a_folder_may_end_in_the_name_of_another_model(place: Path) -> None:
    from asr_nb.runs.experiment import load_experiment, model_notes

    for parent in ("mine", "theirs"):
        (place / parent / "whisper-base").mkdir(parents=True)
    text = EXPERIMENT[: EXPERIMENT.index("models:")].replace("made-up", "alias")
    text += (
        "models: [whisper-base, mine/whisper-base, theirs/whisper-base, some-lab/whisper-base]\n"
    )
    (place / "alias.yaml").write_text(text)
    lab = load_experiment(place / "alias.yaml")
    names = [model.name for model in lab.models]
    assert len(set(names)) == 4 and names[0] == "whisper-base"
    assert all(name.startswith("whisper-base-") for name in names[1:])
    assert [note.where for note in model_notes(lab)] == names[1:]
    (place / "mine" / "whisper-base" / "config.json").write_text("{}")
    (place / "theirs" / "whisper-base" / "config.json").write_text("{}")
    answer = command("plan", "alias.yaml", "--out", "runs", cwd=place)
    assert answer.code == 0, answer.err
    assert f"{names[1]}: it has digits in its name because whisper-base means" in answer.out
    assert str(place) not in answer.out
