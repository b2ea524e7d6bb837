"""What a machine can tell of how the project is written: limits of style, imports one way only."""

import re
import runpy
import subprocess
import sys
from pathlib import Path
from typing import Any

import nbstyle
import pytest
import setuptools
import structure
from conftest import ROOT

NOTEBOOKS = nbstyle.notebooks()
FOUND, RANK = structure.modules(), structure.ranks()


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_a_notebook_keeps_the_limits(path: Path) -> None:
    over = "\n".join(nbstyle.over_limits(path))
    assert not over, f"see Style in CONTRIBUTING.md\n{over}"


def test_notebooks_tests_and_tools_are_formatted() -> None:
    ruff = [str(Path(sys.executable).parent / "ruff"), "format", "--check", "."]
    done = subprocess.run(ruff, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, f"`ruff format .` mends it\n{done.stdout}"


def test_imports_go_one_way() -> None:
    wrong = "\n".join([*structure.against_the_order(FOUND, RANK), *structure.cycles(FOUND)])
    assert not wrong, f"`python tools/structure.py` shows the order\n{wrong}"


def test_nobody_outside_models_asks_for_a_family() -> None:
    wrong = "\n".join(structure.who_asks_for_a_family(FOUND))
    assert not wrong, f"a family answers for itself, see Family in CONTRIBUTING.md\n{wrong}"


def test_every_folder_has_its_place_in_the_order() -> None:
    assert {structure.place_of(name) for name in FOUND} <= RANK.keys()


def packed(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """What setup.py tells setuptools."""
    told: dict[str, Any] = {}
    monkeypatch.setattr(setuptools, "setup", lambda **options: told.update(options))
    monkeypatch.chdir(ROOT)
    runpy.run_path(str(ROOT / "setup.py"))
    return told


def test_benchmarks_stay_out_of_the_wheel(monkeypatch: pytest.MonkeyPatch) -> None:
    options = packed(monkeypatch)
    packages = set(options["packages"])
    assert not [name for name in packages if name.startswith("asr_nb.benchmarks")]
    folders = {module.folder for module in FOUND.values()} - {"benchmarks", ""}
    assert {f"asr_nb.{name}" for name in folders} <= packages, "and everything else is in it"
    notebooks = {name for name in options["package_data"]["asr_nb.lab"] if name.endswith(".ipynb")}
    assert {"prepare.ipynb", "baseline.ipynb", "train.ipynb", "evaluate.ipynb"} <= notebooks
    for name in notebooks:
        text = (ROOT / "nbs" / "lab" / name).read_text("utf-8")
        assert not re.search(r"asr_nb\.benchmarks", text), f"{name} needs what is not in the wheel"
