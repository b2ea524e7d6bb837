"""Notebooks as plain text, to read and to edit; cells that did not change keep their outputs.

    python tools/nbtext.py show NOTEBOOK [-o]       print it; -o: with text outputs, shortened
    python tools/nbtext.py write NOTEBOOK < TEXT    make it, or bring it up to date
    python tools/nbtext.py cell NOTEBOOK ID < TEXT  replace the source of one cell
    python tools/nbtext.py ids NOTEBOOK             a line for each cell: id, kind, first line

TEXT is cells, each of which begins with a line of its own: `# %% md ID` or `# %% code ID [TAG ..]`.
An id is short and stable (rms-01): it goes into the exported module. Lines that begin with `#> `
are outputs and are ignored.
"""

import json
import re
import sys
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

HEAD = re.compile(r"# %% (md|code) ([A-Za-z0-9_-]{1,64})((?: \S+)*)")
OUTPUT = "#> "
LONGEST_OUTPUT = 1500  # characters
KERNEL = {"display_name": "python3", "language": "python", "name": "python3"}


@dataclass(frozen=True)
class Cell:
    """A cell as it stands in the text."""

    kind: str  # "md" or "code"
    id: str
    tags: tuple[str, ...]
    source: str


def source_of(cell: dict[str, Any]) -> str:
    """The text of a cell of a notebook file."""
    return "".join(cell["source"])


def load(path: Path) -> dict[str, Any]:
    """The notebook in a file, or an empty one."""
    if path.exists():
        return json.loads(path.read_text(encoding="utf-8"))
    return {"cells": [], "metadata": {"kernelspec": KERNEL}, "nbformat": 4, "nbformat_minor": 5}


def save(path: Path, notebook: dict[str, Any]) -> None:
    """Write it in the form that nbdev-clean leaves unchanged."""
    path.parent.mkdir(parents=True, exist_ok=True)
    text = json.dumps(notebook, indent=1, ensure_ascii=False, sort_keys=True)
    path.write_text(text + "\n", encoding="utf-8")


def output_text(output: dict[str, Any]) -> str:
    """What an output shows as text: a stream, a value or an error; else its kinds."""
    data = output.get("data", {})
    text = output.get("text") or data.get("text/plain") or output.get("traceback") or ""
    kinds = [kind for kind in data if kind != "text/plain"]
    return "".join(text)[:LONGEST_OUTPUT] + (f" [{', '.join(kinds)}]" if kinds else "")


def show(notebook: dict[str, Any], outputs: bool = False) -> Iterator[str]:
    """The blocks of its text, one for each cell."""
    for cell in notebook["cells"]:
        kind = "md" if cell["cell_type"] == "markdown" else "code"
        head = " ".join(["# %%", kind, cell.get("id", "no-id"), *cell["metadata"].get("tags", [])])
        shown = [output_text(output) for output in cell.get("outputs", [])] if outputs else []
        lines = [f"{OUTPUT}{line}" for text in shown for line in text.splitlines()]
        yield "\n".join([head, source_of(cell), *lines, ""])


def parse(text: str) -> list[Cell]:
    """The cells of a text. Raises ValueError for text before the first, or an id used twice."""
    cells: list[tuple[re.Match, list[str]]] = []
    for line in text.splitlines():
        head = HEAD.fullmatch(line)
        if head:
            cells.append((head, []))
        elif line.startswith(OUTPUT):
            continue
        elif cells:
            cells[-1][1].append(line)
        elif line.strip():
            raise ValueError(f"the text begins with {line!r}: a line `# %% md|code ID` is needed")
    twice = [name for name, count in Counter(head[2] for head, _ in cells).items() if count > 1]
    if twice:
        raise ValueError(f"each id may be used once; used twice: {', '.join(twice)}")
    return [
        Cell(head[1], head[2], tuple(head[3].split()), "\n".join(lines).strip("\n"))
        for head, lines in cells
    ]


def build(cell: Cell, before: dict[str, Any] | None) -> dict[str, Any]:
    """A cell of a notebook file; `before` is the one with this id that it replaces."""
    built: dict[str, Any] = {
        "cell_type": "markdown" if cell.kind == "md" else "code",
        "id": cell.id,
        "metadata": {"tags": [*cell.tags]} if cell.tags else {},
        "source": cell.source.splitlines(keepends=True),
    }
    if cell.kind == "code":
        same = before and before["cell_type"] == "code" and source_of(before) == cell.source
        built |= {"execution_count": None, "outputs": before["outputs"] if same and before else []}
    return built


def write(notebook: dict[str, Any], text: str) -> None:
    """Give a notebook the cells of a text."""
    before = {cell.get("id"): cell for cell in notebook["cells"]}
    notebook["cells"] = [build(cell, before.get(cell.id)) for cell in parse(text)]


def replace_source(notebook: dict[str, Any], name: str, text: str) -> None:
    """Give one cell another source. Raises ValueError if no cell has this id."""
    cells = [cell for cell in notebook["cells"] if cell.get("id") == name]
    if not cells:
        raise ValueError(f"there is no cell {name!r}")
    (cell,), source = cells, text.strip("\n")
    if cell["cell_type"] == "code" and source_of(cell) != source:
        cell |= {"outputs": [], "execution_count": None}
    cell["source"] = source.splitlines(keepends=True)


def main(*words: str) -> None:
    """The command. Raises ValueError for what it can't use."""
    verbs = {"show": 2, "write": 2, "cell": 3, "ids": 2}
    outputs = "-o" in words
    words = tuple(word for word in words if word != "-o")
    if not words or len(words) != verbs.get(words[0]):
        raise ValueError(f"it is not called like that:\n\n{__doc__}")
    path = Path(words[1])
    if words[0] != "write" and not path.exists():
        raise ValueError(f"there is no notebook {path}")
    notebook = load(path)
    if words[0] == "show":
        print("\n".join(show(notebook, outputs)))
    elif words[0] == "ids":
        for cell in notebook["cells"]:
            first = (source_of(cell).splitlines() or [""])[0]
            print(cell.get("id", "-"), cell["cell_type"], first[:90])
    else:
        if words[0] == "write":
            write(notebook, sys.stdin.read())
        else:
            replace_source(notebook, words[2], sys.stdin.read())
        save(path, notebook)


if __name__ == "__main__":
    try:
        main(*sys.argv[1:])
    except ValueError as error:
        sys.exit(f"tools/nbtext.py: {error}")
