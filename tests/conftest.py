"""What several tests share: the command line as a user calls it, and one toy experiment that was run."""

import contextlib
import json
import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import psutil
import pytest
from filelock import FileLock

ROOT = Path(__file__).resolve().parent.parent
ASR_NB = str(Path(sys.executable).parent / "asr-nb")


BEGUN_FIRST = (
    "test_readme.py",
    "test_whole.py",
    "test_hub_run.py",
    "test_privacy.py",
)  # minutes each: a late one would run alone


def pytest_addoption(parser: pytest.Parser) -> None:
    """`make golden`: store the results of stages that have another version instead of comparing them."""
    parser.addoption("--golden", action="store_true", help="store the results of the stages")


@pytest.fixture
def renew_golden(request: pytest.FixtureRequest) -> bool:
    """Whether stored results are to be renewed."""
    return request.config.getoption("--golden")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The files that take minutes come first; the order within a file stays."""
    items.sort(
        key=lambda item: (
            BEGUN_FIRST.index(item.path.name) if item.path.name in BEGUN_FIRST else len(BEGUN_FIRST)
        )
    )


@dataclass(frozen=True)
class Said:
    """What a command answered."""

    code: int
    out: str
    err: str


def command(*words: str, cwd: Path | None = None, timeout: float = 600, **environment: str) -> Said:
    """Call `asr-nb` in a process of its own; one that hangs is described before it is ended."""
    child = subprocess.Popen(
        [ASR_NB, *map(str, words)],
        cwd=cwd,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT), "HF_HUB_OFFLINE": "1", **environment},
    )
    try:
        out, err = child.communicate(timeout=timeout)
    except subprocess.TimeoutExpired:
        about = describe(child.pid)
        child.terminate()  # it ends its kernels
        out, err = child.communicate()
        pytest.fail(f"no end after {timeout} s: {' '.join(map(str, words))}\n{err}\n{about}")
    return Said(child.returncode, out, err)


def describe(pid: int) -> str:
    """What a process and its descendants are at: state, seconds of CPU, threads, connections, and the cells they ran."""
    said = []
    top = psutil.Process(pid)
    for process in (top, *top.children(recursive=True)):
        with contextlib.suppress(psutil.Error, OSError):
            lines = [
                f"{process.pid} {process.status()} {process.cpu_times()[:2]} {process.num_threads()} threads: "
                f"{' '.join(process.cmdline())[:160]}",
                *map(str, process.net_connections()),
            ]
            lines += [
                f"thread {task.name}: {(task / 'wchan').read_text()}"
                for task in sorted(Path(f"/proc/{process.pid}/task").glob("*"))
            ]
            for part in sorted(Path(process.cwd()).glob("*.part.ipynb")):
                cells = [
                    c
                    for c in json.loads(part.read_text(encoding="utf-8"))["cells"]
                    if c["cell_type"] == "code"
                ]
                lines.append(
                    f"{part.name}: {sum(bool(c['execution_count']) for c in cells)} of {len(cells)} cells ran"
                )
            said += lines
    return "\n".join(said)


def run_folders(root: Path) -> dict[str, Path]:
    """The run folders of an experiment by stage (and model and recipe), without the hash."""
    return {
        path.parent.name.rsplit("-", 1)[0]: path.parent
        for path in sorted(root.glob("*/result.json"))
    }


def result(folder: Path) -> dict:
    """The record of a run."""
    return json.loads((folder / "result.json").read_text(encoding="utf-8"))


@pytest.fixture(scope="session")
def toy(tmp_path_factory: pytest.TempPathFactory, worker_id: str) -> Path:
    """The toy experiment, run once for all workers; this worker's own copy of its folder."""
    own, base = tmp_path_factory.mktemp("toy"), tmp_path_factory.getbasetemp()
    shared = (base if worker_id == "master" else base.parent) / "toy-of-all"
    with FileLock(f"{shared}.lock"):
        if not (shared / "done").exists():
            said = command("run", "toy", "--out", shared)
            assert said.code == 0, said.err
            (shared / "done").touch()
    shutil.copytree(shared / "toy", own / "toy")
    return own / "toy"
