"""The matched-pairs test against NIST's SCTK (Debian: apt-get install sctk); without it, it skips.

McNemar's test is not compared: sc_stats 2.4.10 misreads its own table (58 of 141 comes out as
p < 0.001, not 0.043).
"""

import math
import random
import re
import subprocess
from pathlib import Path

import pytest
from asr_nb.evaluation.matched_pairs import mapsswe
from asr_nb.evaluation.scoring import Op, align
from scipy.special import ndtr

SCTK = Path("/usr/lib/sctk/bin")
KINDS = {"C": "hit", "S": "substitution", "D": "deletion", "I": "insertion"}
pytestmark = pytest.mark.skipif(not (SCTK / "sc_stats").exists(), reason="sctk is not installed")


def with_errors(
    words: list[str], wrong: float, other: list[str], generator: random.Random
) -> list[str]:
    """Words of which each may be replaced, left out, or followed by another one."""
    hypotheses = []
    for word in words:
        chance = generator.random()
        hypotheses += (
            [generator.choice(other)]
            if chance < 0.6 * wrong
            else []
            if chance < 0.8 * wrong
            else [word]
        )
        hypotheses += [generator.choice(other)] if generator.random() < 0.2 * wrong else []
    return hypotheses


def texts(seed: int, utterances: int, vocabulary: int) -> list[list[str]]:
    """References and the hypotheses of two systems of nearly equal quality; few words: the same
    ones come again and again."""
    generator = random.Random(seed)
    words = [f"w{i}" for i in range(vocabulary)]
    other = words if vocabulary < 100 else [f"q{i}" for i in range(10**6)]
    references = [
        [generator.choice(words) for _ in range(generator.randint(3, 20))]
        for _ in range(utterances)
    ]
    hypotheses = [
        [with_errors(line, wrong, other, generator) for line in references]
        for wrong in (0.12, 0.125)
    ]
    return [[" ".join(line) for line in lines] for lines in (references, *hypotheses)]


def call(name: str, *words: str, cwd: Path, text: str = "") -> str:
    process = subprocess.run(
        [SCTK / name, *words],
        cwd=cwd,
        input=text,
        capture_output=True,
        text=True,
        errors="replace",
        timeout=60,
        check=True,
    )
    return process.stdout


def sclite(folder: Path, references: list[str], *systems: list[str]) -> str:
    """The alignments of systems A and B, as SGML."""
    for name, lines in zip("rAB", (references, *systems), strict=True):
        rows = [f"{line} (s{i % 20}_{i:04d})\n" for i, line in enumerate(lines)]
        (folder / name).write_text("".join(rows), encoding="utf-8")
    options = [word for name in "AB" for word in ("-h", name, "trn", name)]
    return call(
        "sclite", "-r", "r", "trn", *options, "-i", "spu_id", "-o", "sgml", "stdout", cwd=folder
    )


def alignments(sgml: str) -> list[list[list[Op]]]:
    """Both systems' alignments, utterances in one order."""
    systems = []
    for system in sgml.split("<SYSTEM ")[1:]:
        paths = re.findall(r'<PATH id="([^"]+)"[^>]*>\n(.*)\n</PATH>', system)
        steps = {
            name: re.findall(r'([CSDI]),(?:"([^"]*)")?,(?:"([^"]*)")?', path)
            for name, path in paths
        }
        systems.append(
            [[Op(KINDS[kind], *words) for kind, *words in steps[name]] for name in sorted(steps)]
        )
    return systems


@pytest.mark.parametrize(
    ("seed", "vocabulary"), [(0, 50_000), (1, 50_000), (5, 50_000), (0, 30), (2, 30), (3, 30)]
)
def test_agrees_with_sc_stats(tmp_path: Path, seed: int, vocabulary: int) -> None:
    references, *hypotheses = texts(seed, 1000, vocabulary)
    sgml = sclite(tmp_path, references, *hypotheses)
    systems = alignments(sgml)
    ours = mapsswe(*systems)
    report = call("sc_stats", "-p", "-t", "mapsswe", "-v", "-n", "-", cwd=tmp_path, text=sgml)
    segments, z = re.search(r"# segs: (\d+)\).*Z Stat: +([-\d.]+)\)", report).groups()
    assert (ours.segments, f"{-ours.z:.3f}") == (int(segments), z), (
        "it subtracts the other way round"
    )

    unified = call("sc_stats", "-p", "-t", "mapsswe", "-u", "-n", "-", cwd=tmp_path, text=sgml)
    printed = re.search(r"\| +MP +\|\| +A +\| +\| +[~AB] +(<?[\d.]+)", unified)[1]
    p = 2 * ndtr(
        -math.floor(100 * abs(ours.z)) / 100
    )  # sc_stats looks p up at z without its third decimal
    assert (f"{p:.3f}" if p >= 0.001 else "<0.001") == printed
    assert abs(p - ours.p) < 0.009
    if (
        vocabulary > 100
    ):  # with few words two alignments may be equally good, and each scorer takes its own
        own = [
            [align(a, b) for a, b in zip(references, system, strict=True)] for system in hypotheses
        ]
        assert mapsswe(*own) == ours
