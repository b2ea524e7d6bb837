"""Preparing a corpus: the same bits whoever does it, killed anywhere, on a full disk, and in memory
that does not grow."""

import errno
import json
import os
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
from asr_nb.checks import BadInput, sha256
from asr_nb.preprocessing.store import shards
from asr_nb.preprocessing.sound.audio import encode
from asr_nb.preprocessing.sources.source import OpenSource
from asr_nb.preprocessing.store.pool import WorkerPool
from asr_nb.preprocessing.store.provenance import PlannedStep
from asr_nb.preprocessing.corpus.admission import Criteria
from asr_nb.preprocessing.corpus.utterances import Ledger, Utterance
from asr_nb.preprocessing.store import prepared
from asr_nb.preprocessing.store.prepared import PreparationRecord, Preparation, open_set
from conftest import ROOT

ROWS, SHARD = 96, 8
REPEATED, BROKEN = 50, 20  # a row with the sound of another one; one without sound


@dataclass(frozen=True)
class Watched:
    """A step that changes nothing, takes its time, and notes who did it and what is loaded
    there."""

    notes: str = field(default="", compare=False)
    seconds: float = field(default=0.02, compare=False)
    kind, version = "watched", 1

    def apply(
        self, samples: np.ndarray, generator: np.random.Generator
    ) -> tuple[np.ndarray, dict[str, Any]]:
        time.sleep(self.seconds)
        with open(self.notes, "a") as file:
            sound, threads = sha256(samples.tobytes())[:12], os.environ.get("OMP_NUM_THREADS")
            file.write(f"{sound} {os.getpid()} {'torch' in sys.modules} {threads}\n")
        return samples, {}


@dataclass(frozen=True)
class Crowd:
    """A step that mixes in whoever is at hand."""

    pool: tuple = field(default=(), compare=False)
    kind, version, needs_babble = "crowd", 1, True

    def with_babble(self, pool: tuple) -> "Crowd":
        return Crowd(tuple(pool))

    def apply(
        self, samples: np.ndarray, generator: np.random.Generator
    ) -> tuple[np.ndarray, dict[str, Any]]:
        name, other = self.pool[generator.integers(len(self.pool))]
        mixed = samples.copy()
        mixed[: len(other)] += 0.1 * other[: len(mixed)]
        return mixed, {"voice": name}


def corpus(count: int = ROWS, seconds: float = 0.2) -> Iterator[Utterance]:
    """Clips of noise that come one at a time, one of them twice and one broken."""
    noise = (0.1 * np.random.default_rng(0).normal(size=round(16_000 * seconds))).astype(np.float32)
    for n in range(count):
        sound = encode(np.roll(noise, 7 * (n if n != REPEATED else 1)), container="WAV")
        yield Utterance(
            f"clip-{n}",
            "one",
            "en",
            0.0,
            b"no sound" if n == BROKEN else sound,
            speaker=f"voice-{n % 5}",
            split=("test", "train")[n >= count // 4],
        )


def prepare(
    folder: Path,
    crew: WorkerPool,
    steps: tuple[PlannedStep, ...] = (),
    count: int = ROWS,
    seconds: float = 0.2,
) -> PreparationRecord:
    """Prepare the corpus in small shards."""
    shards.SHARD_ROWS = SHARD
    rules = Criteria(max_quarantine=0.5, leaks="drop")
    return Preparation(
        OpenSource(corpus(count, seconds), rules, True), [], folder, Ledger(), steps
    ).run(crew)[1]


def drive(folder: str, notes: str, engine: str) -> None:
    """In a process of its own: prepare the corpus slowly with two workers, and print the
    account."""
    print(
        json.dumps(
            vars(prepare(Path(folder), WorkerPool(2, engine), (PlannedStep(Watched(notes)),)))
        )
    )


def peak(folder: str, count: int) -> None:
    """In a process of its own: prepare `count` clips of 10 s, and print the most memory it took, in
    MB."""
    prepare(Path(folder), WorkerPool(0), count=count, seconds=10.0)
    print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)


def start(call: str, cwd: Path) -> subprocess.Popen:
    environment = {
        **os.environ,
        "PYTHONPATH": f"{ROOT}{os.pathsep}{ROOT / 'tests'}",
        "OMP_NUM_THREADS": "2",
    }
    return subprocess.Popen(
        [sys.executable, "-c", f"import test_prepare; test_prepare.{call}"],
        cwd=cwd,
        text=True,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )


def finished(child: subprocess.Popen) -> str:
    out, err = child.communicate(
        timeout=300
    )  # Ray Data takes a minute to begin where the disk is cold
    assert child.returncode == 0, err
    return out.strip().splitlines()[-1]


def sealed(folder: Path) -> int:
    return len(list(folder.glob("audio/[0-9a-f]*")))


def wait_for(what: Callable[[], bool], seconds: float = 240) -> None:
    deadline = time.monotonic() + seconds
    while not what():
        assert time.monotonic() < deadline, "it did not happen"
        time.sleep(0.01)


def workers_of(child: subprocess.Popen, mark: str) -> list[psutil.Process]:
    return [
        one
        for one in psutil.Process(child.pid).children(recursive=True)
        if any(mark in word for word in one.cmdline())
    ]


@pytest.fixture(scope="module")
def clean(tmp_path_factory: pytest.TempPathFactory) -> PreparationRecord:
    """The corpus as one process prepares it, undisturbed."""
    folder = tmp_path_factory.mktemp("clean") / "noise"
    account = prepare(folder, WorkerPool(0), (PlannedStep(Watched(os.devnull, 0.0)),))
    made = open_set(folder)
    assert (account.rows, account.shards, account.made, len(made.utterances)) == (
        ROWS,
        ROWS // SHARD,
        ROWS // SHARD,
        ROWS - 2,
    )
    assert {f"clip-{REPEATED}", f"clip-{BROKEN}"}.isdisjoint(row.id for row in made.utterances)
    assert all(
        sha256(made.samples(row.id).astype("<f4").tobytes()) == row.audio_sha256
        for row in made.utterances
    )
    return account


def notes_of(path: Path) -> list[list[str]]:
    return [line.split() for line in path.read_text().splitlines()]


def test_workers_give_the_same_bits_and_load_no_torch(
    tmp_path: Path, clean: PreparationRecord
) -> None:
    child = start("drive('noise', 'notes', 'local')", tmp_path)
    account = json.loads(finished(child))
    assert (account["digest"], account["done"]) == (clean.digest, "in 2 processes")
    notes = notes_of(tmp_path / "notes")
    assert len(notes) == ROWS - 1 and len({note[1] for note in notes}) == 2
    assert {(torch, threads) for _, _, torch, threads in notes} == {("False", "1")}


def test_a_killed_driver_costs_a_shard_a_worker(tmp_path: Path, clean: PreparationRecord) -> None:
    child = start("drive('noise', 'notes', 'local')", tmp_path)
    wait_for(lambda: sealed(tmp_path / "noise") >= 4)
    workers = workers_of(child, "spawn_main")
    child.kill()
    child.communicate()
    psutil.wait_procs(workers, timeout=10)
    assert len(workers) == 2 and not any(worker.is_running() for worker in workers), (
        "workers outlive their driver"
    )
    kept = sealed(tmp_path / "noise")
    assert kept < ROWS // SHARD and not (tmp_path / "noise" / "set.json").exists()
    account = json.loads(finished(start("drive('noise', 'notes', 'local')", tmp_path)))
    assert (account["digest"], account["made"]) == (clean.digest, ROWS // SHARD - kept)
    assert len(notes_of(tmp_path / "notes")) <= ROWS - 1 + 2 * SHARD
    assert not list((tmp_path / "noise").rglob(".*"))


def test_a_killed_worker_costs_nothing_but_time(tmp_path: Path, clean: PreparationRecord) -> None:
    child = start("drive('noise', 'notes', 'local')", tmp_path)
    wait_for(lambda: sealed(tmp_path / "noise") >= 3)
    workers_of(child, "spawn_main")[0].kill()
    account = json.loads(finished(child))
    assert account["digest"] == clean.digest
    ids = [row.id for row in open_set(tmp_path / "noise").utterances]
    assert len(ids) == len(set(ids)) == ROWS - 2


@pytest.mark.skipif(find_spec("ray") is None, reason="the extra `ray` is not installed")
def test_ray_survives_the_same(tmp_path: Path, clean: PreparationRecord) -> None:
    child = start("drive('noise', 'notes', 'ray')", tmp_path)
    wait_for(lambda: sealed(tmp_path / "noise") >= 2)
    children = psutil.Process(child.pid).children(recursive=True)
    child.kill()
    child.communicate()
    psutil.wait_procs(children, timeout=20)
    kept = sealed(tmp_path / "noise")
    assert kept < ROWS // SHARD
    child = start("drive('noise', 'notes', 'ray')", tmp_path)
    wait_for(lambda: sealed(tmp_path / "noise") >= kept + 2)
    wait_for(lambda: bool(workers_of(child, "ray::Map")))  # between two jobs it has another name
    workers_of(child, "ray::Map")[0].kill()
    account = json.loads(finished(child))
    assert (account["digest"], account["done"]) == (clean.digest, "by ray, 2 at a time")
    notes = notes_of(tmp_path / "notes")
    assert {(torch, threads) for _, _, torch, threads in notes} == {("False", "1")}
    assert len(notes) <= ROWS - 1 + 3 * SHARD


def test_babble_is_the_same_for_every_worker_and_of_the_same_split(tmp_path: Path) -> None:
    steps = (PlannedStep(Crowd(), ("train",)),)
    accounts = [prepare(tmp_path / str(workers), WorkerPool(workers), steps) for workers in (0, 2)]
    assert accounts[0].digest == accounts[1].digest
    rows = open_set(tmp_path / "2").utterances
    assert all(bool(row.audio_chain) == (row.split == "train") for row in rows)
    assert len(list((tmp_path / "2" / "babble").iterdir())) == 1


def test_a_full_disk_is_one_line_and_loses_nothing(
    tmp_path: Path, clean: PreparationRecord, monkeypatch: pytest.MonkeyPatch
) -> None:
    write, left = shards.ArrayStore.write, [5]

    def full(folder: Path, items: Any, dtype: str) -> Any:
        left[0] -= 1
        if not left[0]:
            raise OSError(errno.ENOSPC, "No space left on device")
        return write(folder, items, dtype)

    steps = (PlannedStep(Watched(os.devnull, 0.0)),)
    monkeypatch.setattr(shards.ArrayStore, "write", full)
    with pytest.raises(BadInput, match="disk: it is full; 4 sealed shards of noise stay"):
        prepare(tmp_path / "noise", WorkerPool(0), steps)
    account = prepare(tmp_path / "noise", WorkerPool(0), steps)
    assert (account.digest, account.made) == (clean.digest, ROWS // SHARD - 4)


def test_a_disk_that_is_too_small_is_refused_before_anything_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from asr_nb.preprocessing.store import estimate

    monkeypatch.setattr(estimate, "free_bytes", lambda folder: 10**6)
    opened = OpenSource(list(corpus()), Criteria(), True)
    with pytest.raises(BadInput, match="disk: only 1.0 MB are free; .* will be written"):
        prepared.prepare_set(opened, [], tmp_path / "noise", Ledger())
    assert not list((tmp_path / "noise").iterdir())


def test_memory_does_not_grow_with_the_corpus(tmp_path: Path) -> None:
    once, four = (
        float(finished(start(f"peak('noise-{count}', {count})", tmp_path))) for count in (128, 512)
    )
    assert four < 1.15 * once, f"{once:.0f} MB for 128 clips, {four:.0f} MB for 512"


def test_a_worker_that_is_always_killed_is_said(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match="killed 3 times in a row"):
        list(WorkerPool(1).map(suicide, [1]))


def suicide(_: int) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def test_the_key_of_features_covers_all_the_code_that_makes_them() -> None:
    from asr_nb.models import ctc, external
    from asr_nb.models.whisper import untrained

    families = untrained(["one two"], languages=("en",)), ctc.untrained(["one two"])
    readers = [family.reader for family in families] + [external.Reader("transcripts")]
    assert [bool(reader.compute) for reader in readers] == [True, False, False]
    for module in {reader.compute.__module__ for reader in readers if reader.compute}:
        code = (
            f"import sys, {module}\n"
            "for name, module in sys.modules.items():\n"
            "    if name.startswith('asr_nb.') and not hasattr(module, '__path__'):\n"
            "        print(name)\n"
        )
        ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
        others = set(ran.stdout.split()) - {module, "asr_nb.checks"}
        assert not others, (
            f"{module} computes features with {sorted(others)}, which no key of a reader covers: "
            "keep what computes features in one module"
        )
