"""What several tests share: the command line as a user calls it, and one run of the toy."""

import atexit
import contextlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import psutil
import pytest
from asr_nb.runs.kernels import SWITCH, Forked, ForkServer, can_fork, relevant, start_server
from asr_nb.runs.notebook import kernel_environment
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
    """`make golden`: store the results of stages that have another version instead of comparing
    them."""
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
class Answer:
    """What a command answered."""

    code: int
    out: str
    err: str


_servers: dict[tuple, ForkServer] = {}
_choosing = threading.Lock()
SERVERS = 2  # at a time: each holds what it imported


def server_for(environment: Mapping[str, str]) -> ForkServer:
    """The fork server for commands of this environment, and for the runs that they start."""
    whole = kernel_environment("", environment)
    key = tuple(sorted(relevant(whole).items()))
    with _choosing:
        if key not in _servers or not _servers[key].runs():
            while len(_servers) >= SERVERS:
                _servers.pop(next(iter(_servers))).close()
            _servers[key] = start_server(whole)
            atexit.register(_servers[key].close)
        return _servers[key]


def begin(
    words: Sequence[str], cwd: Path, environment: Mapping[str, str], out: IO[bytes], err: IO[bytes]
) -> subprocess.Popen | Forked:
    """`asr-nb` with these words: forked where that can be done, else the installed command."""
    argv = [ASR_NB, *map(str, words)]
    if can_fork() and environment.get(SWITCH) != "0":
        return server_for(environment).fork("asr_nb.cli:main", argv, cwd, environment, out, err)
    return subprocess.Popen(argv, cwd=cwd, env=environment, stdout=out, stderr=err)


def command(
    *words: str, cwd: Path | None = None, timeout: float = 600, **environment: str
) -> Answer:
    """Call `asr-nb` in a process of its own; one that hangs is described before it is ended."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "HF_HUB_OFFLINE": "1", **environment}
    with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
        child = begin(words, cwd or Path.cwd(), environment, out, err)
        hangs = ""
        try:
            child.wait(timeout)
        except subprocess.TimeoutExpired:
            hangs = (
                f"no end after {timeout} s: {' '.join(map(str, words))}\n{describe(os.getpid())}"
            )
            child.terminate()  # it ends its kernels
            child.wait()
        texts = [file.seek(0) or file.read().decode("utf-8") for file in (out, err)]
    if hangs:
        pytest.fail(f"{hangs}\n{texts[1]}")
    assert child.pid, "the fork server ended"
    return Answer(child.returncode, *texts)


def describe(pid: int) -> str:
    """What a process and its descendants do: state, CPU seconds, threads, connections, cells."""
    lines = []
    top = psutil.Process(pid)
    for process in (top, *top.children(recursive=True)):
        with contextlib.suppress(psutil.Error, OSError):
            lines += [
                f"{process.pid} {process.status()} {process.cpu_times()[:2]} "
                f"{process.num_threads()} threads: {' '.join(process.cmdline())[:160]}",
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
                ran = sum(bool(c["execution_count"]) for c in cells)
                lines.append(f"{part.name}: {ran} of {len(cells)} cells ran")
    return "\n".join(lines)


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
            answer = command("run", "toy", "--out", shared)
            assert answer.code == 0, answer.err
            (shared / "done").touch()
    shutil.copytree(shared / "toy", own / "toy")
    return own / "toy"
