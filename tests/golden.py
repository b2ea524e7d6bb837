"""Stored results of the stages: a result that changes needs another version of its stage, or old
runs would pass for new ones.

What can't differ between machines is compared exactly: rows, splits, texts, counts. Numbers that
come from floating-point sums (levels, features, losses, intervals) may differ by a thousandth: a
smaller change is not detected. The log-probabilities of tokens, timings, hashes of weights and the
wording of sentences are left out.
"""

import hashlib
import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from asr_nb.runs.pipeline import needed_versions

GOLDEN = Path(__file__).parent / "golden"
TOLERANCE = 1e-3  # of a number that is no count, as a share


def lines(path: Path) -> list[dict[str, Any]]:
    """The rows of a JSONL file."""
    return [json.loads(line) for line in path.read_text("utf-8").split("\n") if line]


def digest(value: Any) -> str:
    """A short hash of what must be equal."""
    return hashlib.sha256(json.dumps(value, ensure_ascii=False).encode()).hexdigest()[:16]


def prepared(folder: Path) -> dict[str, Any]:
    """Each set: its rows without their sound, and how loud and how large sound and features are."""
    sets = {}
    for place in sorted((folder / "store").iterdir()):
        rows, levels = lines(place / "manifest.jsonl"), lines(place / "measures.jsonl")
        rows = [{k: v for k, v in row.items() if "sha256" not in k} for row in rows]
        features = [
            np.fromfile(file, np.float16) for file in place.glob("features-*/*/numbers.bin")
        ]
        values = np.concatenate(features).astype(np.float64)
        sets[place.name] = {
            "rows": digest(rows),
            "seconds": sum(row["duration"] for row in rows),
            "level": float(np.mean([row["after"]["rms_db"] for row in levels])),
            "features": [len(values), float(values.mean()), float(values.std())],
        }
    return sets


def text_hashes(folder: Path) -> dict[str, Any]:
    """A hash of the texts in each file with predictions."""
    return {
        file.name: digest([[row["test_set"], row["id"], row["hypothesis"]] for row in lines(file)])
        for file in sorted(folder.glob("*.jsonl"))
        if file.name in ("predictions.jsonl", "dev.jsonl")
    }


def history(folder: Path) -> list[dict[str, Any]]:
    """Learning rates and losses of a training run, without the norms of its gradients."""
    return [
        {k: v for k, v in row.items() if k != "grad_norm"}
        for row in lines(folder / "metrics.jsonl")
    ]


def figures(folder: Path) -> list[Any]:
    """The figures of the model cards, as their metadata have them."""
    values = []
    for card in sorted(folder.glob("train-*.md")):
        (model,) = yaml.safe_load(card.read_text("utf-8").split("---")[1])["model-index"]
        for part in model["results"]:
            for metric in part["metrics"]:
                name = [model["name"], part["dataset"]["name"], metric["type"]]
                values.append([*name, metric["value"], *metric.get("args", {}).values()])
    return values


MORE: dict[str, Callable[[Path], Any]] = {  # what a stage leaves besides its metrics
    "prepare": prepared,
    "baseline": text_hashes,
    "headroom": lambda folder: record(folder)["inputs"]["probes"],
    "train": history,
    "evaluate": text_hashes,
    "audit": lambda folder: record(folder)["inputs"]["audit.settings"],
    "card": figures,
}


def record(folder: Path) -> dict[str, Any]:
    """The record of a run."""
    return json.loads((folder / "result.json").read_text("utf-8"))


def rounded(value: Any) -> Any:
    """A JSON value with its numbers to six digits, so that a stored file shows no noise."""
    if isinstance(value, dict):
        return {key: rounded(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [rounded(item) for item in value]
    return float(f"{value:.6g}") if isinstance(value, float) else value


def result_of(stage: str, folder: Path) -> dict[str, Any]:
    """The result of a run of the stage, as it is stored: metrics as value, low, high and n."""
    metrics = {
        name: [metric[key] for key in ("value", "low", "high", "n")]
        for name, metric in record(folder)["metrics"].items()
    }
    return rounded({"metrics": metrics, "more": MORE[stage](folder)})


def difference(stored: Any, fresh: Any, where: str = "") -> str:
    """The first place where two results differ, and how; empty if they are the same."""
    if isinstance(stored, dict) and isinstance(fresh, dict):
        for key in sorted(stored.keys() | fresh.keys()):
            if change := difference(stored.get(key), fresh.get(key), f"{where}/{key}"):
                return change
        return ""
    if isinstance(stored, list) and isinstance(fresh, list) and len(stored) == len(fresh):
        pairs = enumerate(zip(stored, fresh, strict=True))
        return next((d for n, (a, b) in pairs if (d := difference(a, b, f"{where}/{n}"))), "")
    if isinstance(stored, float) and isinstance(fresh, (int, float)):
        same = math.isclose(stored, fresh, rel_tol=TOLERANCE, abs_tol=1e-6)
    else:
        same = stored == fresh
    return "" if same else f"{where}: {fresh!r}, stored is {stored!r}"


def check(stage: str, folder: Path, renew: bool, golden: Path = GOLDEN) -> None:
    """Compare a run's result with the stored one; renew: store it, if the stage has another version
    than the stored one."""
    path, versions, result = (
        golden / f"{stage}.json",
        needed_versions(stage),
        result_of(stage, folder),
    )
    stored = json.loads(path.read_text("utf-8")) if path.exists() else {}
    changed = difference(stored.get("result"), result)
    if stored.get("versions") == versions and changed:
        pytest.fail(
            f"the result of the stage {stage} changed ({changed}): raise its version "
            "in nbs/6_runs/pipeline.ipynb and run `make golden`"
        )
    if renew:
        text = json.dumps({"versions": versions, "result": result}, indent=1, ensure_ascii=False)
        path.write_text(text + "\n", encoding="utf-8")
    elif stored.get("versions") != versions:
        state = f"is of {stored['versions']}" if stored else "is missing"
        pytest.fail(
            f"the stored result of the stage {stage} {state}, the stages are at {versions}: "
            "run `make golden`"
        )
