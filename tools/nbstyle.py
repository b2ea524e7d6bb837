"""How the notebooks read, and what goes over the limits of style.

    python tools/nbstyle.py            a row for each notebook, then what is over a limit
    python tools/nbstyle.py --limits   the second part only

The exit code is 1 if anything is over a limit. Shares and lengths are places to look, not limits.
The limits: an exported cell has at most 40 lines, a code cell of a run notebook (nbs/lab) 12 lines
of code; no line of markdown is longer than 100 columns, except in what tools/wrap.py leaves alone.
"""

import ast
import re
import statistics
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nbtext import load, source_of
from wrap import too_long

ROOT = Path(__file__).resolve().parent.parent
EXPORTED_LINES, LAB_LINES, COLUMNS = 40, 12, 100
QUOTES = 6  # columns
TEST = re.compile(r"^\s*(assert |test_\w+\(|with (pytest\.raises|ExceptionExpected))", re.MULTILINE)
MAGIC = re.compile(r"^\s*[%!].*$", re.MULTILINE)


def notebooks(root: Path = ROOT) -> list[Path]:
    """The notebooks of the project."""
    paths = (root / "nbs").rglob("*.ipynb")
    return sorted(path for path in paths if ".ipynb_checkpoints" not in path.parts)


def code_lines(source: str) -> list[str]:
    """The lines of code: neither empty, nor a comment alone, nor a directive."""
    lines = (line.strip() for line in source.splitlines())
    return [line for line in lines if line and not line.startswith("#")]


def is_exported(source: str) -> bool:
    """Whether a code cell goes into the package."""
    return bool(re.match(r"#\|\s*export\b", source))


def functions(source: str) -> list[ast.FunctionDef]:
    """The functions and methods that a cell defines; none if it is not Python alone."""
    try:
        tree = ast.parse(MAGIC.sub("", source))
    except SyntaxError:
        return []
    return [node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)]


def share(part: int, whole: int) -> str:
    """A share in per cent."""
    return f"{100 * part / whole:.0f}%" if whole else "–"


@dataclass(frozen=True)
class Reading:
    """What a notebook looks like to a reader."""

    cells: int
    markdown: str  # share of the cells
    code: str  # lines of a code cell: median/90th percentile
    function: str  # lines of an exported function: median/longest
    annotated: str  # share of the arguments
    tested: str  # share of the code cells
    output: str  # share of the code cells

    HEAD = ("cells", "md", "code", "function", "annotated", "tested", "output")

    def row(self) -> tuple[str, ...]:
        """As texts, in the order of HEAD."""
        return tuple(map(str, (vars(self)[name] for name in self.__dataclass_fields__)))


def reading(cells: Sequence[dict[str, Any]]) -> Reading:
    """The figures of a notebook."""
    code = [cell for cell in cells if cell["cell_type"] == "code" and source_of(cell).strip()]
    sources = [source_of(cell) for cell in code]
    sizes = sorted(len([x for x in s.splitlines() if x.strip()]) for s in sources) or [0]
    exported = [f for s in sources if is_exported(s) for f in functions(s)]
    spans = sorted((f.end_lineno or f.lineno) - f.lineno + 1 for f in exported) or [0]
    arguments = [a for f in exported for a in (*f.args.args, *f.args.kwonlyargs)]
    arguments = [a for a in arguments if a.arg not in ("self", "cls")]
    return Reading(
        len(cells),
        share(sum(cell["cell_type"] == "markdown" for cell in cells), len(cells)),
        f"{statistics.median(sizes):.0f}/{sizes[int(0.9 * (len(sizes) - 1))]}",
        f"{statistics.median(spans):.0f}/{spans[-1]}",
        share(sum(a.annotation is not None for a in arguments), len(arguments)),
        share(sum(bool(TEST.search(s)) for s in sources), len(code)),
        share(sum(bool(cell["outputs"]) for cell in code), len(code)),
    )


def over_limits(path: Path, root: Path = ROOT) -> Iterator[str]:
    """A line for each cell of a notebook that goes over a limit: notebook, cell, what to do."""
    for cell in load(path)["cells"]:
        source, where = source_of(cell), f"{path.relative_to(root)} {cell['id']}"
        if cell["cell_type"] == "markdown":
            purpose = re.search(r"^> (.*)", source, re.MULTILINE)
            if cell["id"] == "title-01" and purpose and len(purpose[1]) > COLUMNS - QUOTES:
                size = len(purpose[1])
                limit = COLUMNS - QUOTES
                yield f"{where}: the purpose has {size} columns; {limit} are allowed"
            for number, line in enumerate(too_long(source, COLUMNS)):
                if not number:
                    size = len(line)
                    yield f"{where}: a line of {size} columns; tools/wrap.py breaks it at {COLUMNS}"
            continue
        size = len(source.splitlines())
        if is_exported(source) and size > EXPORTED_LINES:
            yield f"{where}: {size} lines are exported; split it, {EXPORTED_LINES} are allowed"
        count = len(code_lines(source))
        if path.parent.name == "lab" and count > LAB_LINES:
            yield f"{where}: {count} lines of code; {LAB_LINES} are allowed, the package takes more"


def table(rows: Sequence[Sequence[str]]) -> str:
    """Rows of text with their columns aligned."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return "\n".join(
        "  ".join(text.ljust(width) for text, width in zip(row, widths, strict=True)).rstrip()
        for row in rows
    )


def main(*words: str) -> int:
    """Print what the notebooks are like; the exit code is 1 if one goes over a limit."""
    paths = notebooks()
    if "--limits" not in words:
        rows = [(str(p.relative_to(ROOT)), *reading(load(p)["cells"]).row()) for p in paths]
        print(table([("notebook", *Reading.HEAD), *rows]))
    over = [line for path in paths for line in over_limits(path)]
    print(*over, f"{len(over)} cells are over a limit", sep="\n")
    return bool(over)


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
