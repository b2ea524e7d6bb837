"""What must hold for every notebook: ids, parameters, no machine paths, no junk in the outputs."""

import configparser
import hashlib
import json
import re
import tempfile
from collections import Counter
from pathlib import Path

import asr_nb
import pytest
from asr_nb.runs.notebook import declared_parameters
from conftest import ROOT

NOTEBOOKS = sorted(
    path for path in (ROOT / "nbs").rglob("*.ipynb") if ".ipynb_checkpoints" not in path.parts
)
KEPT = sorted((ROOT / "papermill_runs").rglob("*.ipynb"))
LAB = [path for path in NOTEBOOKS if path.parent.name == "lab"]
PLACES = re.compile(
    r"(/work/|/root/|/home/\w|/Users/\w|" + re.escape(tempfile.gettempdir()) + r"/|site-packages/)"
)


def named(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def outputs(path: Path) -> list[dict]:
    return [
        o for cell in json.loads(path.read_text("utf-8"))["cells"] for o in cell.get("outputs", [])
    ]


@pytest.mark.parametrize("path", NOTEBOOKS, ids=named)
def test_cell_ids_are_there_and_differ(path: Path) -> None:
    ids = [cell["id"] for cell in json.loads(path.read_text("utf-8"))["cells"]]
    assert not [name for name, count in Counter(ids).items() if count > 1]


@pytest.mark.parametrize("path", LAB, ids=named)
def test_run_notebooks_declare_their_parameters(path: Path) -> None:
    assert declared_parameters(path)
    cell = next(
        c
        for c in json.loads(path.read_text("utf-8"))["cells"]
        if "parameters" in c["metadata"].get("tags", [])
    )
    assert all("#" in line for line in cell["source"]), "each parameter says what it is"


@pytest.mark.parametrize("path", NOTEBOOKS + KEPT, ids=named)
def test_nothing_of_this_machine_and_no_junk(path: Path) -> None:
    found = PLACES.findall(path.read_text("utf-8"))
    assert not found, f"machine paths: {set(found)}"
    for output in outputs(path):
        assert output["output_type"] != "error"
        assert output.get("name") != "stderr", output.get("text")
        assert "application/vnd.jupyter.widget-view+json" not in output.get("data", {})
        assert len(json.dumps(output)) < 300_000


@pytest.mark.parametrize("path", KEPT, ids=named)
def test_a_kept_report_has_its_record(path: Path) -> None:
    record = json.loads((path.parent / "result.json").read_text("utf-8"))
    shown = [
        o["data"]["application/vnd.asr-nb+json"]
        for o in outputs(path)
        if "application/vnd.asr-nb+json" in o.get("data", {})
    ]
    assert shown == [record]


def test_version_is_told_once() -> None:
    config = configparser.ConfigParser()
    config.read(ROOT / "settings.ini")
    assert asr_nb.__version__ == config["DEFAULT"]["version"]


def test_the_micro_model_in_the_package_is_the_one_that_was_built() -> None:
    record = json.loads((ROOT / "papermill_runs/lab/build_micro/result.json").read_text("utf-8"))
    for name, digest in record["artifacts"].items():
        if name.startswith("model/"):
            assert (
                hashlib.sha256(
                    (ROOT / "asr_nb/micro" / name.removeprefix("model/")).read_bytes()
                ).hexdigest()
                == digest
            ), name
