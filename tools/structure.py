"""The structure of the package: folders, modules, lines, and which folder imports which.

    python tools/structure.py           print it; exit code 1 if an import goes against the order
    python tools/structure.py --check   only what goes against it
    python tools/structure.py MODULE    what imports a module, directly or through others

The order is that of the numbers in `nbs/`; within preprocessing it is INNER. An import inside a
function counts, too.
"""

import ast
import sys
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = "asr_nb"
INNER = (
    "numbers",
    "text",
    "sound",
    "corpus",
    "sources",
    "store",
)  # the folders of preprocessing, in order


@dataclass(frozen=True)
class Module:
    """A module of the package."""

    name: str  # without the package: "runs.plan"
    lines: int
    imports: frozenset[str]  # names of modules of the package

    @property
    def folder(self) -> str:
        """The folder it lies in, "preprocessing.text"; "" if it lies in none."""
        return self.name.rpartition(".")[0]


def executed(tree: ast.AST) -> Iterator[ast.AST]:
    """Every node of code but those under `if TYPE_CHECKING:`."""
    yield tree
    for node in ast.iter_child_nodes(tree):
        if not (isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"):
            yield from executed(node)


def imported(tree: ast.AST, name: str = "") -> Iterator[str]:
    """What code imports, as dotted names that may end in a function or class.

    `name` is the module that the code is of, for relative imports.
    """
    parts = f"{PACKAGE}.{name}".split(".")
    for node in executed(tree):
        if isinstance(node, ast.ImportFrom):
            start = ".".join(parts[: -node.level]) if node.level else ""
            base = ".".join(filter(None, [start, node.module]))
            yield from (f"{base}.{alias.name}" for alias in node.names)
        elif isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)


def resolve(names: Iterator[str], modules: Mapping[str, Path]) -> frozenset[str]:
    """The modules of the package that dotted names stand for."""
    inside = (name.removeprefix(f"{PACKAGE}.") for name in names if name.startswith(f"{PACKAGE}."))
    both = (candidate for name in inside for candidate in (name, name.rpartition(".")[0]))
    return frozenset(name for name in both if name in modules)


def module_files(root: Path = ROOT) -> dict[str, Path]:
    """The file of each module of the package, by its name without the package."""
    package = root / PACKAGE
    return {
        ".".join(path.relative_to(package).with_suffix("").parts): path
        for path in sorted(package.rglob("*.py"))
        if path.name not in ("__init__.py", "_modidx.py")
    }


def modules(root: Path = ROOT) -> dict[str, Module]:
    """Every module of the package by name."""
    files = module_files(root)
    result = {}
    for name, path in files.items():
        text = path.read_text(encoding="utf-8")
        names = resolve(imported(ast.parse(text), name), files) - {name}
        result[name] = Module(name, len(text.splitlines()), names)
    return result


def ranks(root: Path = ROOT) -> dict[str, tuple[int, int]]:
    """Where each folder, and each module that lies in none, stands in the order."""
    result = {}
    for path in (root / "nbs").iterdir():
        number, _, name = path.stem.partition("_")
        if number.isdigit():
            result[name] = int(number), 0
    place = result["preprocessing"][0]
    inner = {f"preprocessing.{name}": (place, n) for n, name in enumerate(INNER)}
    return result | inner | {"cli": (max(n for n, _ in result.values()) + 1, 0)}


def against_the_order(
    found: Mapping[str, Module], rank: Mapping[str, tuple[int, int]]
) -> list[str]:
    """A line for each import of a folder that stands later."""
    return [
        f"{module.name} imports {other}: {place_of(other)} stands after {place_of(module.name)}"
        for module in found.values()
        for other in sorted(module.imports)
        if rank[place_of(other)] > rank[place_of(module.name)]
    ]


def place_of(name: str) -> str:
    """What has a rank: the folder of a module, or the module if it lies in none."""
    return name.rpartition(".")[0] or name


def cycles(found: Mapping[str, Module]) -> list[str]:
    """A line for each pair of modules that reach each other by imports."""
    reach = {name: dependencies(name, found) for name in found}
    return [
        f"{name} and {other} import each other"
        for name in found
        for other in sorted(reach[name])
        if name < other and name in reach[other]
    ]


def dependencies(name: str, found: Mapping[str, Module]) -> set[str]:
    """The modules that a module needs, directly or through others."""
    reached: set[str] = set()
    waiting = [*found[name].imports]
    while waiting:
        other = waiting.pop()
        if other not in reached:
            reached.add(other)
            waiting += found[other].imports
    return reached


def dependents(names: set[str], found: Mapping[str, Module]) -> dict[str, int]:
    """The modules that need one of `names`, with the number of imports between; 0 for itself."""
    distance = dict.fromkeys(names, 0)
    frontier, steps = set(names), 0
    while frontier:
        steps += 1
        frontier = {
            module.name
            for module in found.values()
            if module.name not in distance and module.imports & frontier
        }
        distance |= dict.fromkeys(frontier, steps)
    return distance


def families(root: Path = ROOT) -> dict[str, str]:
    """The names of the model families and their modules: what FAMILIES in models names."""
    modules = []
    for path in sorted((root / PACKAGE / "models").glob("*.py")):
        for node in ast.parse(path.read_text(encoding="utf-8")).body:
            if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "FAMILIES":
                modules += [n.value for n in ast.walk(node.value) if isinstance(n, ast.Constant)]
    start = f"{PACKAGE}.models."
    names = [name for name in modules if isinstance(name, str) and name.startswith(start)]
    return {name.removeprefix(start): name.removeprefix(f"{PACKAGE}.") for name in names}


def who_asks_for_a_family(found: Mapping[str, Module], root: Path = ROOT) -> list[str]:
    """A line for each place outside models that imports a family or compares with its name."""
    names, files = families(root), module_files(root)
    lines = []
    for module in found.values():
        if module.folder == "models":
            continue
        lines += [
            f"{module.name} imports the family {name}"
            for name in sorted(module.imports & set(names.values()))
        ]
        for node in ast.walk(ast.parse(files[module.name].read_text(encoding="utf-8"))):
            if isinstance(node, ast.Compare):
                sides = [side for side in ast.walk(node) if isinstance(side, ast.Constant)]
                words = {side.value for side in sides} & set(names)
                lines += [f"{module.name}, line {node.lineno}, asks for {w}" for w in sorted(words)]
    return lines


def arrows(found: Mapping[str, Module]) -> dict[str, Counter[str]]:
    """For each folder how many imports it has of each other one."""
    result: dict[str, Counter[str]] = defaultdict(Counter)
    for module in found.values():
        here = place_of(module.name)
        result[here].update(place_of(o) for o in module.imports if place_of(o) != here)
    return result


def report(found: Mapping[str, Module], rank: Mapping[str, tuple[int, int]]) -> str:
    """The structure as text: for each folder its modules, and what it imports."""
    lines = [f"{len(found)} modules, {sum(m.lines for m in found.values())} lines"]
    drawn = arrows(found)
    for place in sorted({place_of(name) for name in found}, key=lambda name: (rank[name], name)):
        here = [module for module in found.values() if place_of(module.name) == place]
        names = " ".join(f"{m.name.rpartition('.')[2]}:{m.lines}" for m in here)
        lines.append(
            f"\n{place} ({len(here)} modules, {sum(m.lines for m in here)} lines): {names}"
        )
        if drawn[place]:
            order = sorted(drawn[place].items(), key=lambda item: rank[item[0]])
            lines.append("  imports " + ", ".join(f"{name} {count}x" for name, count in order))
    return "\n".join(lines)


def main(*words: str) -> int:
    """Print the structure, or what needs a module; the exit code is 1 if something is wrong."""
    found, rank = modules(), ranks()
    if words and words[0] != "--check":
        name = words[0].removeprefix(f"{PACKAGE}.")
        if name not in found:
            print(f"tools/structure.py: {name} is no module; they are {', '.join(found)}")
            return 2
        for other, distance in sorted(dependents({name}, found).items(), key=lambda item: item[1]):
            print(distance, other)
        return 0
    if not words:
        print(report(found, rank))
    wrong = [*against_the_order(found, rank), *cycles(found), *who_asks_for_a_family(found)]
    print(*(f"WRONG: {line}" for line in wrong), sep="\n", end="\n" if wrong else "")
    return bool(wrong)


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
