"""A new stage, flag or recipe field is written down in one or two places; the package finds it."""

import copy
import dataclasses
import io
from pathlib import Path

import nbformat
import pytest
from asr_nb.runs.experiment import load_experiment
from asr_nb.runs.pipeline import STAGES, Stage, planned_stages
from asr_nb.runs.plan import plan_runs, plan_text, select
from conftest import result
from nbformat.v4 import new_code_cell, new_notebook

LISTEN = Stage(
    "listen",
    "What does the recording sound like?",
    axes=("model",),
    reads={"prepared": ("prepare",)},
    depends=("scorer",),
    idle=("pause",),
)


def lab_of(folder: Path, code: str = "") -> Path:
    """A lab whose notebooks take what their stage declares and do nothing."""
    folder.mkdir(exist_ok=True)
    for stage in planned_stages():
        names = [f'{name}: str = ""' for name in sorted(stage.fixed)]
        names += [f"{name}: int = 0" for name in stage.idle]
        cells = [
            new_code_cell("\n".join(names), metadata={"tags": ["parameters"]}),
            new_code_cell(
                f"from asr_nb.runs import record\n{code}\nrun = record.start('{stage.name}')\n"
                "run.metric('da_phone.echo', 0.25, n=4)\nrun.finish('an echo')"
            ),
        ]
        nbformat.write(new_notebook(cells=cells), folder / f"{stage.name}.ipynb")
    return folder


def test_a_new_stage_is_its_notebook_and_its_entry(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from asr_nb.reports.labbook import experiments_in
    from asr_nb.reports.labbook import labbook as write_labbook
    from asr_nb.runs.executors import Terminal, run_local

    toy, words = load_experiment("toy"), io.StringIO()
    monkeypatch.setitem(STAGES, "listen", LISTEN)
    lab = lab_of(tmp_path / "lab")
    runs = select(plan_runs(toy, {"pause": 3}, lab), stage="listen")
    assert [run.name.rsplit("-", 1)[0] for run in runs] == ["prepare", "listen-micro"]
    assert runs[1].parameters == {
        "experiment": "../experiment.yaml",
        "model": "micro",
        "prepared": f"../{runs[0].name}",
        "pause": 3,
    }
    assert LISTEN.question in plan_text(toy, runs, tmp_path / "toy")
    assert runs[1].key == select(plan_runs(toy, {"pause": 4}, lab), stage="listen")[1].key
    outcome = run_local(toy, runs, tmp_path, Terminal(words), lab=lab)
    assert outcome.code == 0, words.getvalue()
    assert result(tmp_path / "toy" / runs[1].name)["metrics"]["da_phone.echo"]["value"] == 0.25
    (experiment,) = experiments_in(tmp_path / "toy")
    assert [run.stage for run in experiment.runs] == ["prepare", "listen"]
    assert runs[1].name in write_labbook(tmp_path / "toy").read_text("utf-8")


def test_a_version_makes_another_run_of_it_and_of_what_builds_on_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def keys() -> dict[str, str]:
        return {run.stage: run.key for run in plan_runs(load_experiment("toy"), lab=lab)}

    lab = lab_of(tmp_path / "lab")
    before = keys()
    lab_of(lab, "import time  # an import and a comment")
    assert keys() == before
    monkeypatch.setitem(STAGES, "train", dataclasses.replace(STAGES["train"], version=2))
    changed = {stage for stage, key in keys().items() if key != before[stage]}
    assert changed == {"train", "evaluate", "audit", "card"}


def test_the_versions_of_the_package_are_not_in_a_key(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import asr_nb

    lab = lab_of(tmp_path / "lab")
    before = plan_runs(load_experiment("toy"), lab=lab)
    monkeypatch.setattr(asr_nb, "__version__", "99.0")
    assert plan_runs(load_experiment("toy"), lab=lab) == before


def test_a_new_flag_is_a_line_in_a_notebook(tmp_path: Path) -> None:
    toy, lab = load_experiment("toy"), lab_of(tmp_path / "lab")
    notebook = nbformat.read(lab / "audit.ipynb", as_version=4)
    notebook.cells[0].source += "\nloud: bool = False"
    nbformat.write(notebook, lab / "audit.ipynb")
    quiet, loud = (plan_runs(toy, flags, lab) for flags in ({}, {"loud": True}))
    changed = {one.stage for one, other in zip(quiet, loud, strict=True) if one.key != other.key}
    assert changed == {"audit", "card"}


def test_every_field_of_a_recipe_is_in_the_key_of_its_training(tmp_path: Path) -> None:
    toy, lab = load_experiment("toy"), lab_of(tmp_path / "lab")

    def key(**changes: object) -> str:
        recipe = copy.copy(toy.recipes[0])
        for name, value in changes.items():
            object.__setattr__(recipe, name, value)  # values that no recipe would take
        runs = plan_runs(dataclasses.replace(toy, recipes=(recipe,)), lab=lab)
        return next(run.key for run in runs if run.stage == "train")

    for field in dataclasses.fields(toy.recipes[0]):
        if field.name != "name":
            other = (getattr(toy.recipes[0], field.name), "another")
            assert (key(**{field.name: other}) != key()) == (field.name not in ("note", "allow"))
