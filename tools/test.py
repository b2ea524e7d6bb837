"""Every test of the project: the sync gate, style, structure, notebooks and pytest.

    python tools/test.py [--quick]    --quick: of the tests only those of what changed

Exit code 0 only if all pass.
"""

import hashlib
import os
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
BIN = Path(sys.executable).parent
ENVIRONMENT = {
    **os.environ,
    "OMP_NUM_THREADS": "1",
    "TOKENIZERS_PARALLELISM": "false",
    "PYTHONHASHSEED": "0",
    "PATH": f"{BIN}{os.pathsep}{os.environ.get('PATH', '')}",
}


def contents(*folders: str) -> dict[str, str]:
    """Hash of each source file, to see what a command changed, committed or not."""
    files = [
        f for folder in folders for f in (ROOT / folder).rglob("*") if f.suffix in {".py", ".ipynb"}
    ]
    return {
        str(f.relative_to(ROOT)): hashlib.sha256(f.read_bytes()).hexdigest()
        for f in files
        if ".ipynb_checkpoints" not in f.parts
    }


def call(*command: str) -> int:
    return subprocess.run(command, cwd=ROOT, env=ENVIRONMENT).returncode


def unchanged_by(command: str, folder: str) -> int:
    before = contents(folder)
    code, after = call(str(BIN / command)), contents(folder)
    changed = sorted(k for k in before.keys() | after.keys() if before.get(k) != after.get(k))
    if changed:
        print(f"{command} changed {', '.join(changed)}: run `make sync` and commit the result")
    return code or bool(changed)


def style() -> int:
    """The formatter and the linter."""
    ruff = str(BIN / "ruff")
    return call(ruff, "format", "--check", "-q", ".") or call(ruff, "check", "-q", ".")


GATE = {
    "package equals notebooks": lambda: unchanged_by("nbdev-export", "asr_nb"),
    "notebooks are clean": lambda: unchanged_by("nbdev-clean", "nbs"),
    "README equals index": lambda: call(sys.executable, "tools/readme.py", "--check"),
    "style": style,
    "structure": lambda: call(sys.executable, "tools/structure.py", "--check"),
}
PYTEST = ("-m", "pytest", "-n", "2", "--dist", "loadfile", "--no-loadscope-reorder")
STEPS = GATE | {
    "tests in notebooks": lambda: call(sys.executable, "tools/notebooks.py"),
    "pytest": lambda: call(sys.executable, *PYTEST),
}
QUICK = GATE | {
    "what changed": lambda: call(sys.executable, "tools/quick.py"),
}


def main(*words: str) -> int:
    """Do every step; the exit code is 1 if one failed."""
    steps = QUICK if "--quick" in words else STEPS
    failed = []
    for name, step in steps.items():
        start = time.monotonic()
        print(f"== {name}", flush=True)
        if step():
            failed.append(name)
        word, seconds = "FAILED" if name in failed else "passed", time.monotonic() - start
        print(f"== {name}: {word} ({seconds:.0f} s)", flush=True)
    print(*(f"failed: {name}" for name in failed), sep="\n")
    print(f"{len(steps) - len(failed)} passed, {len(failed)} failed")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
