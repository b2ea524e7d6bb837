"""The whole way on a Hub on loopback: from `asr-nb run` on a data set and a model there, to `asr-nb card --push`.

Two lines of commands go side by side, to fit the time: the story of one experiment, and experiments that fail. What
needs no command of its own is asked of one more process, this same file: it patches the client libraries' waits away.
"""

import contextlib
import hashlib
import io
import json
import os
import sys
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

TESTS = Path(__file__).parent
REFUSED = (1, 2)   # exit codes of a run that failed for a bad input: 2, once run_local says so
DATA, MODEL, MINE = "tester/calls", "tester/whisper-micro", "tester/my-adapter"
SPLITS = {"train": 24, "validation": 6, "test": 12}
NO_PATIENCE = {"ASR_NB_RETRY_WAITS": "", "OMP_NUM_THREADS": "1"}


# What the Hub holds


def calls() -> dict[str, bytes]:
    "A small corpus of Danish telephone speech, without ids."
    from asr_nb.preprocessing.synthetic import utterances
    from helpers import parquet

    ours = {"train": "train", "validation": "dev", "test": "test"}
    made = utterances("da", {"channel": "phone", "seed": 1, **{ours[name]: count for name, count in SPLITS.items()}})
    rows = {name: [row for row in made if row.split == ours[name]] for name in SPLITS}
    return {f"data/{name}-00000-of-00001.parquet": parquet({
        "sentence": [row.text for row in some], "speaker": [row.speaker for row in some],
        "audio": [{"bytes": row.audio, "path": None} for row in some]}) for name, some in rows.items()}


def fill(hub: Any) -> dict[str, str]:
    "Put the data sets and models there; the commits of the two that are used."
    micro = {path.name: path.read_bytes() for path in sorted((TESTS.parent / "asr_nb" / "micro").iterdir())}
    data = calls()
    commits = {"data": hub.put("dataset", DATA, data), "model": hub.put("model", MODEL, micro)}
    for name in ("gated", "limited", "limited-once", "cut", "cut-once", "broken"):
        hub.put("model", f"tester/{name}", micro)
    hub.gate("model", "tester/gated")
    hub.fail("model", "tester/limited", 429)
    hub.fail("model", "tester/limited-once", 429, times=8)
    hub.fail("model", "tester/broken", 500)
    hub.cut("model", "tester/cut")
    hub.cut("model", "tester/cut-once", times=8)
    hub.put("model", "tester/pickled", {**micro, "pytorch_model.bin": b"never read"})
    hub.put("model", "tester/pickled", {})
    del hub.repositories["model", "tester/pickled"].commits[-1].files["model.safetensors"]
    for name in ("cut", "limited"):
        hub.put("dataset", f"tester/{name}", data)
    hub.cut("dataset", "tester/cut")
    hub.fail("dataset", "tester/limited", 429)
    return commits


def move_on(hub: Any) -> None:
    "New commits, as made by somebody else meanwhile: a model of another kind, and a data set with nothing to read."
    hub.put("model", MODEL, {"config.json": b'{"model_type": "bert"}'}, title="another model")
    hub.put("dataset", DATA, {name: b"" for name in hub.files("dataset", DATA)}, title="emptied")
