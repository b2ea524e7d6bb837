"""A run notebook that somebody opens: its cells in a kernel without a run folder, and once in
JupyterLab with a browser before it."""

import json
import os
import queue
import re
import shutil
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import browser
import pytest
from asr_nb.runs.experiment import load_experiment
from asr_nb.runs.plan import plan_runs
from asr_nb.runs.record import is_finished
from conftest import ROOT, result
from jupyter_client import KernelManager

LAB = ROOT / "nbs" / "lab"
WIDGET = "application/vnd.jupyter.widget-view+json"


@dataclass
class Answer:
    """What a cell showed in the end, and what it showed on the way."""

    displays: dict[str, dict[str, Any]] = field(default_factory=dict)  # MIME bundles by display
    widgets: int = 0  # that were on the page at some time
    error: dict[str, Any] | None = None

    def take(self, kind: str, content: dict[str, Any]) -> None:
        """Keep one message of the kernel."""
        if kind in ("display_data", "update_display_data", "execute_result"):
            self.widgets += WIDGET in content["data"]
            name = content.get("transient", {}).get("display_id") or f"{len(self.displays)}"
            self.displays[name] = content["data"]
        elif kind == "stream":
            self.displays[f"{len(self.displays)}"] = {
                "text/plain": content["text"],
                "stream": content["name"],
            }
        elif kind == "error":
            self.error = content

    @property
    def text(self) -> str:
        """All that can be read on the page."""
        return "\n".join(
            one.get("text/markdown") or one.get("text/plain", "") for one in self.displays.values()
        )


class Page:
    """A kernel in a folder without a run, as a page with widgets starts it."""

    def __init__(self, folder: Path):
        self.folder = folder
        self.manager = KernelManager(kernel_name="python3")
        here = {"PYTHONPATH": str(ROOT), "JPY_SESSION_NAME": str(folder / "train.ipynb")}
        quiet = {"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false"}
        self.manager.start_kernel(cwd=str(folder), env={**os.environ, **here, **quiet})
        self.client = self.manager.client()
        self.client.start_channels()
        self.client.wait_for_ready(timeout=120)

    def run(self, source: str, until: str = "", timeout: float = 300) -> Answer:
        """Run a cell; `until` such words are in its progress, then stop it as the square button
        does."""
        request, answer, stopped = self.client.execute(source), Answer(), False
        end = time.monotonic() + timeout
        while time.monotonic() < end:
            if until and not stopped and any(until in p.read_text() for p in self.progress()):
                self.manager.interrupt_kernel()
                stopped = True
            try:
                message = self.client.get_iopub_msg(timeout=0.2)
            except queue.Empty:
                continue
            if message["parent_header"].get("msg_id") == request:
                kind, content = message["header"]["msg_type"], message["content"]
                if kind == "status" and content["execution_state"] == "idle":
                    return answer
                answer.take(kind, content)
        raise AssertionError(f"no end after {timeout} s: {source[:80]}")

    def progress(self) -> list[Path]:
        """The progress files of all runs."""
        return list(self.folder.glob("papermill_runs/*/*/progress.jsonl"))

    def notebook(self, name: str, until_cell: str = "", **parameters: Any) -> dict[str, Answer]:
        """Run the cells of a run notebook from the top, parameters edited, up to a cell or the
        first error."""
        answers = {}
        for id, source in cells(name, **parameters).items():
            if id == until_cell:
                break
            answers[id] = self.run(source)
            if answers[id].error:
                break
        return answers

    def close(self) -> None:
        """End the kernel."""
        self.client.stop_channels()
        self.manager.shutdown_kernel(now=True)


def cells(name: str, **parameters: Any) -> dict[str, str]:
    """The code cells of a run notebook by id, with parameters as somebody edits them."""
    notebook = json.loads((LAB / f"{name}.ipynb").read_text(encoding="utf-8"))
    sources = {c["id"]: "".join(c["source"]) for c in notebook["cells"] if c["cell_type"] == "code"}
    for key, value in parameters.items():
        line = re.compile(rf"^({key}: \w+ =) [^#]*", re.MULTILINE)
        assert line.search(sources["parameters"]), key
        sources["parameters"] = line.sub(rf"\g<1> {value!r}  ", sources["parameters"])
    return sources


def whole(answers: dict[str, Answer], name: str) -> str:
    """All that a notebook showed, if it ran to its end and left nothing on the page that is
    junk."""
    errors = {id: a.error["traceback"] for id, a in answers.items() if a.error}
    assert not errors, errors
    assert list(answers) == list(cells(name))
    for id, answer in answers.items():
        for one in answer.displays.values():
            assert WIDGET not in one, f"{id}: a widget stays"
            assert "stream" not in one, f"{id}: {one}"
    return "\n".join(answer.text for answer in answers.values())


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Page]:
    """One kernel for all: notebooks may share one."""
    folder = tmp_path_factory.mktemp("opened")
    (folder / "papermill_runs").mkdir()  # the nearest one: not that of somebody's home
    page = Page(folder)
    yield page
    page.close()


@pytest.fixture(scope="module")
def trained(page: Page) -> dict[str, Answer]:
    """train.ipynb as it stands, run from the top where nothing was made before."""
    return page.notebook("train")


def run_folder(page: Page, stage: str, **settings: Any) -> Path:
    """The folder that the plan names."""
    plan = plan_runs(load_experiment("toy"), settings)
    return page.folder / "papermill_runs" / "toy" / next(r.name for r in plan if r.stage == stage)


def test_train_as_it_stands(page: Page, trained: dict[str, Answer]) -> None:
    text, folder = whole(trained, "train"), run_folder(page, "train")
    assert "1 of 1 runs made first" in text and "train finished" in text
    assert f"`papermill_runs/toy/{folder.name}/result.json`" in text
    assert trained["run-02"].widgets and trained["start-03"].widgets
    record = result(folder)
    assert is_finished(folder) and record["status"] == "finished" and record["inputs"]["by_hand"]
    assert record["parameters"]["model"] == "micro" and record["parameters"]["seed"] == -1


def test_what_papermill_made_has_no_widgets(page: Page, trained: dict[str, Answer]) -> None:
    report = (run_folder(page, "prepare") / "prepare.ipynb").read_text(encoding="utf-8")
    assert WIDGET not in report and "runs made first" not in report


def test_cells_may_be_run_twice(page: Page, trained: dict[str, Answer]) -> None:
    folder = run_folder(page, "train")
    before, twice = result(folder), cells("train")
    for id in "start-03", "run-02", "run-02", "finish-01", "finish-01":
        answer = page.run(twice[id])
        assert not answer.error, answer.error
    after = result(folder)
    for key in "metrics", "artifacts", "warnings", "parameters", "inputs":
        assert before[key] == after[key], key
    assert is_finished(folder)


def test_a_stop_by_hand_is_in_the_record(page: Page, trained: dict[str, Answer]) -> None:
    answers = page.notebook("train", until_cell="run-02", steps=4000)
    assert not any(answer.error for answer in answers.values())
    folder = run_folder(page, "train", steps=4000)
    stopped = page.run(cells("train")["run-02"], until='"steps":4000')
    assert stopped.error["ename"] == "KeyboardInterrupt" and "The record says so" in stopped.text
    record = result(folder)
    assert record["status"] == "stopped" and record["verdict"].startswith("stopped by hand")
    assert result(run_folder(page, "train"))["status"] == "finished"


def test_evaluate_finds_the_training_and_makes_the_baseline(
    page: Page, trained: dict[str, Answer]
) -> None:
    text = whole(page.notebook("evaluate"), "evaluate")
    assert "1 of 1 runs made first" in text and "evaluate finished" in text
    record = result(run_folder(page, "evaluate"))
    assert record["parameters"]["trained"] == f"../{run_folder(page, 'train').name}"
    assert not record["inputs"].get("missing")


@pytest.mark.parametrize("name", ["baseline", "headroom", "audit", "card", "compare"])
def test_the_others_as_they_stand(page: Page, trained: dict[str, Answer], name: str) -> None:
    assert f"{name} finished" in whole(page.notebook(name), name)


def test_what_cannot_be_used_is_one_line(page: Page) -> None:
    answers = page.notebook("train", experiment="tooy")
    error = answers["start-03"].error
    assert error["ename"] == "BadInput" and len(error["traceback"]) == 1
    assert "toy" in error["traceback"][0] and "\n" not in error["traceback"][0]
    answers = page.notebook("evaluate", experiment="fleurs-fr")
    error = answers["start-03"].error
    assert "asr-nb run fleurs-fr --stage" in error["traceback"][0]


def test_a_private_experiment_keeps_its_texts_to_itself(page: Page) -> None:
    options = "{channel: clean, train: 4, dev: 2, test: 2, seed: 1}"
    (page.folder / "calls.yaml").write_text(
        "name: calls\nquestion: Is anything shown?\nmodels: [micro]\nrecipes: [full]\n"
        "corpus: {name: calls, source: synthetic, language: da, privacy: private, "
        f"options: {options}}}\n"
    )
    text = whole(page.notebook("prepare", experiment="calls.yaml", workers=0), "prepare")
    (folder,) = (page.folder / "papermill_runs" / "calls").glob("prepare-*")
    rows = (folder / "private" / "store" / "calls" / "manifest.jsonl").read_text("utf-8")
    spoken = {json.loads(row)["text"] for row in rows.splitlines()}
    public = [p.read_text("utf-8") for p in folder.glob("*.json*")] + [text]
    assert spoken and not [t for t in spoken for page in public if t in page]
    assert not (folder / "store").exists() and is_finished(folder)


# In JupyterLab, before a browser

OPEN = "[...jupyterapp.shell.widgets('main')][0]"
READY = f"{OPEN}.sessionContext.session?.kernel?.status == 'idle'"
OUTPUTS = (
    "Array.from(document.querySelectorAll('.jp-OutputArea-output'))"
    ".map(o => o.innerText).join('\\n')"
)
CURVE = "document.querySelector('.jp-Notebook img.widget-image, .jp-Notebook .widget-image')"
BAR = "document.querySelector('.jp-Notebook .widget-hbox')"
STEPS = 250  # enough that a fast machine is still at work when somebody looks
CURVE_SHOWS = f"({CURVE} || {{clientHeight: 0}}).clientHeight > 100"
PICTURES = os.environ.get("ASR_NB_PICTURES", "")  # a folder: keep the screenshots there


def keep_picture(window: browser.Browser, name: str, folder: Path) -> Path:
    """A screenshot, kept if somebody asked for it."""
    return window.picture(Path(PICTURES or folder) / f"{name}.png")


@pytest.mark.skipif(bool(browser.LACKING), reason=f"not installed: {', '.join(browser.LACKING)}")
def test_in_jupyterlab(page: Page, trained: dict[str, Answer], tmp_path: Path) -> None:
    """Open, run all, see the progress and the curve, see the result; what is saved has no
    widgets."""
    shutil.copytree(page.folder / "papermill_runs", tmp_path / "papermill_runs")
    notebook = json.loads((LAB / "train.ipynb").read_text(encoding="utf-8"))
    for cell in notebook["cells"]:
        if cell["id"] == "parameters":
            cell["source"] = cells("train", steps=STEPS)["parameters"]
    (tmp_path / "train.ipynb").write_text(json.dumps(notebook), encoding="utf-8")
    here = {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
    with browser.jupyterlab(tmp_path, **here) as address, browser.browser() as window:
        window.ask("Page.navigate", url=f"{address}/lab/tree/train.ipynb?token=lab&reset")
        window.wait(READY)
        window.value(f"jupyterapp.shell.activateById({OPEN}.id)")
        window.value("jupyterapp.commands.execute('application:toggle-left-area')")
        window.value("void jupyterapp.commands.execute('notebook:run-all-cells')")
        progress = window.wait(f"{CURVE_SHOWS} && {BAR}?.innerText", 180)  # both at one moment
        assert re.search(rf"\d+ of {STEPS} · loss \d\.\d{{3}} · \d+ s left", progress), progress
        window.value(f"{CURVE}?.closest('.jp-Cell').scrollIntoView()")
        time.sleep(2 if PICTURES else 0)  # it grows
        keep_picture(window, "progress", tmp_path)
        text = window.wait(f"({OUTPUTS}).includes('The record:') && ({OUTPUTS})", 240)
        assert (
            "train finished." in text and f"{STEPS} of {STEPS}" in text and "Traceback" not in text
        )
        assert not window.value("document.querySelectorAll('.jp-Notebook .jupyter-widgets').length")
        window.value(
            "document.querySelector('.jp-Notebook .jp-Cell:last-of-type').scrollIntoView()"
        )
        keep_picture(window, "result", tmp_path)
        window.value("jupyterapp.commands.execute('docmanager:save').then(() => true)")
    saved = (tmp_path / "train.ipynb").read_text(encoding="utf-8")
    assert "train finished." in saved and WIDGET not in saved
