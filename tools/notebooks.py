"""Run the tests in notebooks, two at a time, each in a fork of one process that has imported all.

    python tools/notebooks.py [NOTEBOOK ...]     all of nbs/ but nbs/lab, if none is named

Where nothing can be forked, nbdev-test runs them.
"""

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO

from asr_nb.runs.kernels import Forked, ForkServer, can_fork, start_server
from asr_nb.runs.notebook import kernel_environment

ROOT = Path(__file__).resolve().parent.parent
TOOLS = Path(__file__).resolve().parent
SLOTS = 2
SLOWEST = 10  # so many are listed at the end
# minutes each, because they run experiments: one that is begun late would run alone
LONG = ("executors", "cli", "notebook", "sweep", "kernels", "speed", "longform")


def all_notebooks() -> list[Path]:
    """The notebooks that have tests, those first that take long."""
    paths = (ROOT / "nbs").rglob("*.ipynb")
    chosen = [p for p in paths if p.parent.name != "lab" and ".ipynb_checkpoints" not in p.parts]

    def place(path: Path) -> tuple[int, Path]:
        name = path.stem.split("_")[-1]
        return LONG.index(name) if name in LONG else len(LONG), path

    return sorted(chosen, key=place)


def test_one() -> None:
    """In a fork: run the notebook of argv[1] as nbdev-test does; exit code 1 if it fails."""
    from nbdev.config import get_config
    from nbdev.test import test_nb

    path, flags = Path(sys.argv[1]), get_config(ROOT).tst_flags
    flags = flags.split() if isinstance(flags, str) else flags
    passed, _ = test_nb(path, skip_flags=flags, basepath=ROOT)
    sys.exit(not passed)


@dataclass
class Test:
    """A notebook that is being tested."""

    path: Path
    process: Forked
    words: IO[bytes]
    began: float = field(default_factory=time.monotonic)

    def end(self) -> tuple[float, str]:
        """Seconds, and what to say of it if it failed."""
        self.words.seek(0)
        words = self.words.read().decode(errors="replace")
        failed = f"{self.path.relative_to(ROOT)} failed\n{words}" if self.process.returncode else ""
        return time.monotonic() - self.began, failed


def begin(path: Path, server: ForkServer, environment: Mapping[str, str]) -> Test:
    """Start the test of a notebook."""
    words = tempfile.TemporaryFile()
    argv = ["notebooks", str(path)]
    return Test(
        path, server.fork("notebooks:test_one", argv, ROOT, environment, words, words), words
    )


def run(
    paths: Sequence[Path],
    server: ForkServer,
    environment: Mapping[str, str],
    until: float = float("inf"),  # time.monotonic() after which none is begun
) -> tuple[int, list[Path]]:
    """Test the notebooks, SLOTS at a time; the number of those that failed, and those not begun."""
    waiting, running, seconds, failures = [*paths], [], {}, 0
    while running or (waiting and time.monotonic() < until):
        while waiting and len(running) < SLOTS and time.monotonic() < until:
            running.append(begin(waiting.pop(0), server, environment))
        time.sleep(0.05)
        for test in [test for test in running if test.process.poll() is not None]:
            running.remove(test)
            seconds[test.path], failed = test.end()
            failures += bool(failed)
            print(failed, end="\n" if failed else "", flush=True)
    for path in sorted(seconds, key=lambda path: -seconds[path])[:SLOWEST]:
        print(f"{seconds[path]:6.1f} s  {path.relative_to(ROOT)}")
    print(f"{len(seconds) - failures} notebooks passed, {failures} failed", flush=True)
    return failures, waiting


def test_some(paths: Sequence[Path], until: float = float("inf")) -> tuple[int, list[Path]]:
    """Test notebooks; the number of those that failed, and those not begun by `until`."""
    if not paths:
        return 0, []
    if not can_fork():
        nbdev_test = str(Path(sys.executable).parent / "nbdev-test")
        return sum(subprocess.run([nbdev_test, str(path)]).returncode != 0 for path in paths), []
    search = os.pathsep.join([str(ROOT), str(TOOLS)])
    environment = kernel_environment("", {**os.environ, "PYTHONPATH": search, "IN_TEST": "1"})
    server = start_server(environment, ["nbdev.test"])
    try:
        return run(paths, server, environment, until)
    finally:
        server.close()
        server.process.wait()


def main(*words: str) -> int:
    """Test the notebooks that are named, or all; the exit code is 1 if one failed."""
    failures, _ = test_some([Path(word).resolve() for word in words] or all_notebooks())
    return bool(failures)


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
