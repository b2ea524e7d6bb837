"""What several tests share: the command line as a user calls it, and one toy experiment that was run."""

import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
ASR_NB = str(Path(sys.executable).parent / "asr-nb")


@dataclass(frozen=True)
class Said:
    """What a command answered."""

    code: int
    out: str
    err: str


def command(*words: str, cwd: Path | None = None, timeout: float = 600, **environment: str) -> Said:
    """Call `asr-nb` in a process of its own."""
    done = subprocess.run(
        [ASR_NB, *map(str, words)], cwd=cwd, timeout=timeout, capture_output=True, text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT), "HF_HUB_OFFLINE": "1", **environment})
    return Said(done.returncode, done.stdout, done.stderr)


def run_folders(root: Path) -> dict[str, Path]:
    """The run folders of an experiment by stage (and model and recipe), without the hash."""
    return {path.parent.name.rsplit("-", 1)[0]: path.parent for path in sorted(root.glob("*/result.json"))}


def result(folder: Path) -> dict:
    """The record of a run."""
    return json.loads((folder / "result.json").read_text(encoding="utf-8"))


@pytest.fixture(scope="session")
def toy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The toy experiment, run once; its folder."""
    out = tmp_path_factory.mktemp("toy")
    said = command("run", "toy", "--out", out)
    assert said.code == 0, said.err
    return out / "toy"
