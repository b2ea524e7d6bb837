"""The tools that notebooks are written with, and the choice of the tests for a change."""

import json
from pathlib import Path

import nbstyle
import nbtext
import pytest
import quick
import structure
import wrap
from conftest import ROOT

NOTEBOOKS = nbstyle.notebooks()
TEXT = """# %% md title-01
# toy

> A toy.

# %% code parameters-01 parameters
steps: int = 2  # how many

#> an output
# %% code sum-01
1 + 1
"""


def written(path: Path, text: str = TEXT) -> dict:
    notebook = nbtext.load(path)
    nbtext.write(notebook, text)
    nbtext.save(path, notebook)
    return nbtext.load(path)


def test_a_text_becomes_a_notebook_and_a_text_again(tmp_path: Path) -> None:
    notebook = written(tmp_path / "toy.ipynb")
    assert [cell["id"] for cell in notebook["cells"]] == ["title-01", "parameters-01", "sum-01"]
    assert notebook["cells"][1]["metadata"] == {"tags": ["parameters"]}
    assert nbtext.source_of(notebook["cells"][1]) == "steps: int = 2  # how many"
    assert written(tmp_path / "toy.ipynb", "\n".join(nbtext.show(notebook))) == notebook


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_every_notebook_survives_the_way_through_text(path: Path) -> None:
    notebook, before = nbtext.load(path), nbtext.load(path)
    nbtext.write(notebook, "\n".join(nbtext.show(notebook, outputs=True)))
    for new, old in zip(notebook["cells"], before["cells"], strict=True):
        assert nbtext.source_of(new) == nbtext.source_of(old).strip("\n")
        assert new.get("outputs") == old.get("outputs")


def test_outputs_stay_with_cells_that_did_not_change(tmp_path: Path) -> None:
    notebook = written(tmp_path / "toy.ipynb")
    shown = {"output_type": "execute_result", "data": {"text/plain": ["2"]}, "metadata": {}}
    notebook["cells"][2]["outputs"] = [shown]
    nbtext.save(tmp_path / "toy.ipynb", notebook)
    kept = written(tmp_path / "toy.ipynb", TEXT.replace("A toy.", "Another."))
    assert kept["cells"][2]["outputs"] == [shown]
    assert "#> 2" in "\n".join(nbtext.show(kept, outputs=True))
    nbtext.replace_source(kept, "sum-01", "1 + 2\n")
    assert kept["cells"][2] | {"metadata": {}} == {
        "cell_type": "code",
        "execution_count": None,
        "id": "sum-01",
        "metadata": {},
        "outputs": [],
        "source": ["1 + 2"],
    }


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("no cell\n" + TEXT, "begins with 'no cell'"),
        (TEXT + "\n# %% code sum-01\n2", "used twice: sum-01"),
    ],
)
def test_a_text_that_is_no_notebook_is_refused(text: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        nbtext.parse(text)


def test_what_can_not_be_done_is_said(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no notebook"):
        nbtext.main("show", str(tmp_path / "none.ipynb"))
    with pytest.raises(ValueError, match="not called like that"):
        nbtext.main("read", "x")
    written(tmp_path / "toy.ipynb")
    with pytest.raises(ValueError, match="no cell 'sum-02'"):
        nbtext.replace_source(nbtext.load(tmp_path / "toy.ipynb"), "sum-02", "")


@pytest.mark.parametrize(
    ("source", "wrapped"),
    [
        ("one two three four", "one two\nthree four"),
        ("- one two three\n  four\n- five", "- one two\n  three\n  four\n- five"),
        ("  1. one two three", "  1. one\n     two\n     three"),
        ("# one two three four", "# one two three four"),
        ("| one | two | three |\n|---|---|---|", "| one | two | three |\n|---|---|---|"),
        ("```\none two three four\n```", "```\none two three four\n```"),
        ("~~~sh\n```\none two three four\n~~~", "~~~sh\n```\none two three four\n~~~"),
        ("one `two three four` five", "one\n`two three four`\nfive"),
        ("[one two three](four) five", "[one two three](four)\nfive"),
        ("one two 3. three", "one two 3.\nthree"),
        ("one two th # four", "one two th #\nfour"),
        ("<b>one two three</b>", "<b>one two three</b>"),
        ("    one two three four", "    one two three four"),
        ("one two three  \nfour", "one two three  \nfour"),
        ("one two\n\nthree four five", "one two\n\nthree four\nfive"),
    ],
)
def test_wrapping(source: str, wrapped: str) -> None:
    assert wrap.wrap(source, 10) == wrapped
    assert wrap.wrap(wrapped, 10) == wrapped


@pytest.mark.parametrize("columns", [40, 100])
def test_wrapping_every_cell_changes_no_word_and_nothing_that_is_shown(columns: int) -> None:
    import mistune

    show = mistune.create_markdown(plugins=["table"])
    for path in NOTEBOOKS:
        for cell in nbtext.load(path)["cells"]:
            if cell["cell_type"] == "markdown":
                source = nbtext.source_of(cell)
                text = wrap.wrap(source, columns)
                assert wrap.wrap(text, columns) == text, (path, cell["id"])
                assert show(text).split() == show(source).split(), (path, cell["id"])


def test_wrapping_a_notebook(tmp_path: Path) -> None:
    path = tmp_path / "toy.ipynb"
    written(path, f"# %% md long-01\n{'word ' * 40}\n# %% code code-01\n# {'word ' * 40}")
    assert wrap.main("--check", str(path)) == 1
    assert wrap.main(str(path)) == 0
    assert wrap.main("--check", str(path)) == 0
    text, code = (nbtext.source_of(cell) for cell in nbtext.load(path)["cells"])
    assert max(map(len, text.splitlines())) <= 100 < len(code)


def test_a_cell_over_a_limit_is_named(tmp_path: Path) -> None:
    path = tmp_path / "lab" / "toy.ipynb"
    lines = "\n".join(f"x = {n}" for n in range(41))
    written(path, f"# %% code big-01\n#| export\n{lines}\n# %% md long-01\n{'word ' * 40}")
    over = [*nbstyle.over_limits(path, tmp_path)]
    assert len(over) == 3 and all(line.startswith("lab/toy.ipynb ") for line in over)
    assert "42 lines are exported" in over[0] and "41 lines of code" in over[1]


def package(root: Path, files: dict[str, str]) -> dict[str, structure.Module]:
    """A made-up package."""
    for name, text in files.items():
        path = root / "asr_nb" / f"{name.replace('.', '/')}.py"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    for name in ("0_checks", "1_preprocessing", "2_models", "3_training"):
        (root / "nbs" / name).mkdir(parents=True)
    return structure.modules(root)


def test_an_import_against_the_order_is_found_even_inside_a_function(tmp_path: Path) -> None:
    found = package(
        tmp_path,
        {
            "checks": "import json",
            "preprocessing.text.rules": "from ...checks import BadInput",
            "preprocessing.sound.audio": "def f():\n    from ...models import ctc",
            "models.ctc": "from asr_nb.preprocessing.text.rules import Rules",
            "models.family": "if TYPE_CHECKING:\n    from .ctc import A",
            "training.trainer": "from ..models.family import load\nfrom . import watch",
            "training.watch": "from .trainer import Trainer",
        },
    )
    (line,) = structure.against_the_order(found, structure.ranks(tmp_path))
    assert line.startswith("preprocessing.sound.audio imports models.ctc")
    (line,) = structure.cycles(found)
    assert line == "training.trainer and training.watch import each other"
    assert structure.dependents({"models.ctc"}, found) == {
        "models.ctc": 0,
        "preprocessing.sound.audio": 1,
    }


def test_who_asks_for_a_family_is_found(tmp_path: Path) -> None:
    families = 'FAMILIES = {"ctc": "asr_nb.models.ctc"}'
    asking = 'from ..models import ctc\n\ndef f(name):\n    return name == "ctc"'
    found = package(
        tmp_path, {"models.family": families, "models.ctc": "", "training.trainer": asking}
    )
    assert structure.who_asks_for_a_family(found, tmp_path) == [
        "training.trainer imports the family models.ctc",
        "training.trainer, line 4, asks for ctc",
    ]


def test_a_change_brings_its_own_tests_first() -> None:
    found = structure.modules()
    notebooks, tests, left_out = quick.choose({"asr_nb/preprocessing/text/danish.py"}, found)
    assert notebooks[0].stem == "danish" and "normalisers" in [path.stem for path in notebooks]
    assert "audio" not in [path.stem for path in notebooks]
    assert "test_normalisers.py" in [path.name for path in tests]
    notebooks, tests, left_out = quick.choose({"tests/test_sctk.py", "README.md"}, found)
    assert (notebooks, [path.name for path in tests], left_out) == ([], ["test_sctk.py"], [])


def test_the_readme_is_written_from_the_index(tmp_path: Path) -> None:
    import readme

    hidden = {"cell_type": "code", "source": ["#| hide\n", "import x"], "outputs": []}
    shown = {
        "cell_type": "code",
        "source": ["1 + 1"],
        "outputs": [{"data": {"text/plain": ["2"]}}],
    }
    assert readme.cell_text(hidden) == ""
    assert readme.cell_text(shown) == "```python\n1 + 1\n```\n\n    2"
    assert json.loads(json.dumps(shown)) == shown
