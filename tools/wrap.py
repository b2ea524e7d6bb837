"""Wrap the paragraphs and list items of markdown cells at 100 columns.

    python tools/wrap.py NOTEBOOK ...           wrap them in place
    python tools/wrap.py --check NOTEBOOK ...   say what would change; exit code 1 if anything would

Headings, tables, quotations, HTML, fenced or indented code and lines that end in a hard break stay
as they are; a list keeps its indentation. Wrapping twice is wrapping once.
"""

import re
import sys
import textwrap
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from nbtext import load, save, source_of

COLUMNS = 100
FENCE = re.compile(r"\s*(```+|~~~+)")
ITEM = re.compile(r"(\s*)([-*+]|\d{1,9}[.)])(\s+)(?=\S)")
UNTOUCHED = re.compile(
    r"\s*(#{1,6}(\s|$)|\||>|<[A-Za-z/!]|\[[^\]]+\]:|(-\s*){3,}$|(\*\s*){3,}$|=+\s*$)"
)
BEGINS_A_BLOCK = re.compile(r"([-*+]|\d{1,9}[.)]|#{1,6}|>|\||=+|-+|<[A-Za-z/!].*|```+|~~~+)$")


@dataclass(frozen=True)
class Block:
    """Lines that belong together: a paragraph or a list item to wrap, or what stays as it is."""

    lines: tuple[str, ...]
    first: str = ""  # what the first line begins with: indentation and bullet
    wrapped: bool = False


def blocks(source: str) -> Iterator[Block]:
    """The blocks of a markdown text, in order."""
    held: list[str] = []  # the paragraph or item that is being read
    first, fence = "", ""

    def paragraph() -> Iterator[Block]:
        if held:
            hard = any(line.endswith(("  ", "\\")) for line in held)
            yield Block(tuple(held), first, wrapped=not hard)
            held.clear()

    for line in source.split("\n"):
        mark, item = FENCE.match(line), ITEM.match(line)
        if fence or mark:
            yield from paragraph()
            yield Block((line,))
            closes = mark and line.strip().startswith(fence) and not line.strip(" `~")
            fence = "" if fence and closes else fence or (mark[1] if mark else "")
        elif not line.strip() or UNTOUCHED.match(line) or (not held and line.startswith("    ")):
            yield from paragraph()
            yield Block((line,))
        elif item:
            yield from paragraph()
            first = item[0]
            held.append(line)
        else:
            if not held:
                first = re.match(r"\s*", line)[0]
            held.append(line)
    yield from paragraph()


def pieces(text: str) -> list[str]:
    """The words of a text; inline code, a link and a formula are not broken."""
    return re.findall(r"(?:`[^`]*`|!?\[[^\]]*\]\([^)]*\)|\$[^$\n]*\$|\S)+", text)


def fill(block: Block, columns: int) -> list[str]:
    """The lines of a block, each as long as fits; none begins like a block of its own."""
    after = " " * len(block.first)
    lines, current = [], block.first
    for number, word in enumerate(pieces(" ".join(block.lines)[len(block.first) :])):
        joined = current + (" " if number and current.strip() and current != after else "") + word
        if number and len(joined) > columns and not BEGINS_A_BLOCK.match(word):
            lines.append(current)
            current = after + word
        else:
            current = joined
    return [*lines, current]


def wrap(source: str, columns: int = COLUMNS) -> str:
    """A markdown text whose paragraphs and list items are wrapped where a line is too long."""
    lines: list[str] = []
    for block in blocks(source):
        long = block.wrapped and any(len(line) > columns for line in block.lines)
        lines += fill(block, columns) if long else block.lines
    return "\n".join(lines)


def too_long(source: str, columns: int = COLUMNS) -> list[str]:
    """The lines that wrapping would shorten."""
    lines = set(wrap(source, columns).split("\n"))
    return [line for line in source.split("\n") if len(line) > columns and line not in lines]


def wrap_notebook(path: Path, write: bool) -> list[str]:
    """The ids of the cells that wrapping changes; with `write` they are changed in the file."""
    notebook, changed = load(path), []
    for cell in notebook["cells"]:
        source = source_of(cell)
        if cell["cell_type"] == "markdown" and (text := wrap(source)) != source:
            cell["source"] = text.splitlines(keepends=True)
            changed.append(cell["id"])
    if changed and write:
        save(path, notebook)
    return changed


def main(*words: str) -> int:
    """Wrap, or check, the notebooks that are named."""
    paths, check = [Path(word) for word in words if word != "--check"], "--check" in words
    if not paths:
        print(textwrap.dedent(__doc__))
        return 2
    changed = {path: ids for path in paths if (ids := wrap_notebook(path, write=not check))}
    for path, ids in changed.items():
        print(f"{path}: {', '.join(ids)}")
    return bool(changed) and check


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
