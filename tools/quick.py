"""What of the tests has to do with what changed since the branch left main: `make quick`.

Notebooks that changed, those of changed modules and of modules that import them, and the test files
that import them; near ones first. Notebooks are begun for 40 s, test files for 60 s. Those that
run experiments are left to `make test`. What is left out is listed.
"""

import ast
import json
import re
import subprocess
import sys
import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

from structure import ROOT, Module, dependents, imported, module_files, modules, resolve

NOTEBOOKS, ALL = 40.0, 60.0  # s after which none is begun
RUNS_EXPERIMENTS = re.compile(r"\b(command|execute|run_local)\(|\btoy\b")


def git(*words: str) -> list[str]:
    """The lines that git answers; none if it fails."""
    done = subprocess.run(["git", "-C", str(ROOT), *words], capture_output=True, text=True)
    return done.stdout.splitlines() if done.returncode == 0 else []


def changed_files() -> set[str]:
    """The files that differ from where this branch left main, and those new to git."""
    base = git("merge-base", "HEAD", "origin/main") or git("merge-base", "HEAD", "main") or ["HEAD"]
    return {
        *git("diff", "--name-only", base[0]),
        *git("ls-files", "--others", "--exclude-standard"),
    }


def notebook_modules(path: Path, files: Mapping[str, Path]) -> tuple[set[str], set[str]]:
    """The modules that a notebook is the source of, and those that it imports."""
    cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
    own: set[str] = set()
    used: set[str] = set()
    for source in ("".join(cell["source"]) for cell in cells if cell["cell_type"] == "code"):
        exported = re.search(r"^#\|\s*default_exp\s+(\S+)", source, re.MULTILINE)
        own |= {exported[1]} & files.keys() if exported else set()
        with suppress(SyntaxError):  # a magic
            used |= resolve(imported(ast.parse(source)), files)
    return own, used


def near(own: set[str], used: set[str], distance: Mapping[str, int]) -> int | None:
    """How many imports lie between this and what changed; None: there is no way."""
    steps = [distance[name] for name in own & distance.keys()]
    return min([*steps, *(distance[name] + 1 for name in used & distance.keys())], default=None)


def choose(
    changed: set[str], found: Mapping[str, Module]
) -> tuple[list[Path], list[Path], list[str]]:
    """The notebooks and test files to run, near ones first, and the names of those left out."""
    files = module_files()
    names = {name for name, path in files.items() if str(path.relative_to(ROOT)) in changed}
    distance = dependents(names, found)
    notebooks: dict[Path, int] = {}
    tests: dict[Path, int] = {}
    left_out = []
    for path in (ROOT / "nbs").rglob("*.ipynb"):
        if path.parent.name == "lab" or ".ipynb_checkpoints" in path.parts:
            continue
        here = str(path.relative_to(ROOT)) in changed
        far = 0 if here else near(*notebook_modules(path, files), distance)
        if far is not None:
            notebooks[path] = far
    for path in (ROOT / "tests").glob("test_*.py"):
        here, text = str(path.relative_to(ROOT)) in changed, path.read_text(encoding="utf-8")
        used = {*resolve(imported(ast.parse(text)), files)}
        far = 0 if here else near(set(), used, distance)
        if far is not None and not RUNS_EXPERIMENTS.search(text):
            tests[path] = far
        elif far is not None:
            left_out.append(path.name)
    return (
        sorted(notebooks, key=notebooks.__getitem__),
        sorted(tests, key=tests.__getitem__),
        left_out,
    )


def main() -> int:
    """Run what has to do with the changes; the exit code is 1 if something failed."""
    from notebooks import test_some  # it imports the package

    notebooks, tests, left_out = choose(changed_files(), modules())
    began = time.monotonic()
    failures, not_begun = test_some(notebooks, began + NOTEBOOKS)
    left_out += [path.name for path in not_begun]
    for path in tests:
        if time.monotonic() > began + ALL:
            left_out.append(path.name)
            continue
        words = [sys.executable, "-m", "pytest", "-q", "-x", "-m", "not slow", str(path)]
        failures += subprocess.run(words, cwd=ROOT).returncode not in (0, 5)
    if left_out:
        print(f"left to `make test`: {', '.join(left_out)}")
    return bool(failures)


if __name__ == "__main__":
    sys.exit(main())
