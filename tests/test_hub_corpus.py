"""The source `hub` against a Hub on loopback: what is read, and one line for each way it can fail.

The client library reads its environment when it is imported, so the cases run in a second process:
this same file.
"""

import collections
import io
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

TESTS = Path(__file__).parent
RATE = 16_000
OFFLINE = (
    "no dev",
    "newer",
    "aside",
)  # cases with the Hub switched off; the last was never read before
SHORT_WAIT = 0.02  # s; every wait of the client libraries is cut to this


# What the Hub holds


def clip(number: int, level: float = 0.3) -> bytes:
    "A fifth of a second of a tone of its own, as FLAC."
    import soundfile

    buffer = io.BytesIO()
    tone = level * np.sin(2 * np.pi * (100 + number) * np.arange(RATE // 5) / RATE)
    soundfile.write(buffer, tone, RATE, format="FLAC")
    return buffer.getvalue()


def table(numbers: range, **changes: Any) -> bytes:
    "A split as the Hub has it."
    from helpers import parquet

    return parquet(
        {
            "id": [f"id-{n}" for n in numbers],
            "sentence": ["en tone"] * len(numbers),
            "speaker": [f"speaker-{n % 5}" for n in numbers],
            "audio": [{"bytes": clip(n), "path": f"{n}.flac"} for n in numbers],
            **changes,
        }
    )


CONFIGS = b"""---
configs:
- config_name: read_aloud
  data_files: [{split: train, path: read/train.parquet}, {split: test, path: read/test.parquet}]
- config_name: conversation
  data_files: [{split: train, path: talk/train.parquet}]
---
"""


def fill(hub: Any) -> dict[str, str]:
    "Make the data sets; the commits that a case needs to know."
    train, dev, test = table(range(60)), table(range(60, 70)), table(range(70, 80))
    two = {"data/train-00000-of-00001.parquet": train, "data/test-00000-of-00001.parquet": test}
    hub.put("dataset", "lab/three", {**two, "data/validation-00000-of-00001.parquet": dev})
    old = hub.put("dataset", "lab/two", two)
    hub.put("dataset", "lab/two", {"data/train-00000-of-00001.parquet": table(range(100, 110))})
    never_read = hub.put("dataset", "lab/two", two, branch="aside")
    for name in (
        "gated",
        "limited",
        "patience",
        "later",
        "broken",
        "cut",
        "cut-once",
        "cut-stream",
    ):
        hub.put("dataset", f"lab/{name}", two)
    hub.gate("dataset", "lab/gated")
    hub.fail("dataset", "lab/limited", 429)
    hub.fail("dataset", "lab/patience", 429, times=2)
    hub.fail("dataset", "lab/later", 429, after=4)
    hub.fail("dataset", "lab/broken", 500)
    hub.cut("dataset", "lab/cut", times=30)  # 6 a download, 4 downloads a call
    hub.cut("dataset", "lab/cut-once", times=1)
    hub.put(
        "dataset", "lab/cut-stream", {"data/train-00001-of-00002.parquet": table(range(80, 90))}
    )
    hub.cut("dataset", "lab/cut-stream", within="train-00001")
    hub.put("dataset", "lab/empty", {"README.md": b"Moved."})
    hub.put(
        "dataset",
        "lab/configs",
        {
            "README.md": CONFIGS,
            "read/train.parquet": train,
            "read/test.parquet": test,
            "talk/train.parquet": dev,
        },
    )
    hub.put("dataset", "lab/script", {"script.py": b"raise SystemExit('ran')"})
    hub.put(
        "dataset",
        "lab/script",
        {
            "da_dk/train/0000.parquet": train,
            "da_dk/test/0000.parquet": test,
            "en_us/train/0000.parquet": dev,
        },
        branch="refs/convert/parquet",
    )
    hub.put(
        "dataset",
        "lab/overlap",
        {"train.parquet": train, "test.parquet": table(range(50, 55), id=list("abcde"))},
    )
    spoilt = [
        {"bytes": content, "path": None}
        for content in (clip(1)[:400], clip(2, level=0.0), b"", None, clip(3))
    ]
    hub.put("dataset", "lab/spoilt", {"test.parquet": table(range(5), audio=spoilt)})
    return {"two_before": old, "two_aside": never_read}


# The second process: it reads, and prints what it saw


def read(repository: str, streaming: bool = False, **options: Any) -> dict[str, Any]:
    "What came of one call: the splits, what was left out, or the line that was said."
    from asr_nb.preprocessing.corpus.utterances import Ledger
    from helpers import prepared_rows

    ledger, began = Ledger(), time.monotonic()
    options = {"id": repository, "columns": {"text": "sentence"}, "streaming": streaming, **options}
    seen: dict[str, Any] = {"ids": {}, "error": "", "kind": ""}
    try:
        for row, samples in prepared_rows("hub", repository, "da", options, ledger):
            assert samples.dtype == np.float32 and len(samples) == round(row.duration * RATE)
            seen["ids"].setdefault(row.split, []).append(row.id)
    except Exception as error:
        seen |= {"error": str(error), "kind": type(error).__name__}
    return {**seen, "left_out": ledger.counts, "seconds": round(time.monotonic() - began, 2)}


def as_nobody(action: Callable[[], Any], token: str = "") -> Any:
    "What `action` returns to who has no token, or another one."
    before = os.environ.pop("HF_TOKEN")
    try:
        if token:
            os.environ["HF_TOKEN"] = token
        return action()
    finally:
        os.environ["HF_TOKEN"] = before


def push() -> dict[str, Any]:
    """Write to the Hub as publishing does: small and large files, a deletion, a data set, a model
    to load again."""
    import torch
    from datasets import Dataset, load_dataset
    from huggingface_hub import HfApi
    from transformers import Wav2Vec2Config, Wav2Vec2ForCTC

    api, model = HfApi(), "tester/adapter"
    api.create_repo(model, exist_ok=True)
    api.create_repo(model, exist_ok=True)
    tiny = Wav2Vec2ForCTC(
        Wav2Vec2Config(
            hidden_size=8,
            num_hidden_layers=1,
            num_attention_heads=1,
            intermediate_size=8,
            conv_dim=(8,),
            conv_kernel=(10,),
            conv_stride=(5,),
            num_conv_pos_embeddings=4,
            num_conv_pos_embedding_groups=1,
            vocab_size=5,
        )
    )
    tiny.push_to_hub(model)
    api.upload_file(path_or_fileobj=b"# A card", path_in_repo="README.md", repo_id=model)
    api.upload_file(path_or_fileobj=b"wrong", path_in_repo="oops.txt", repo_id=model)
    api.delete_file("oops.txt", model)
    again = Wav2Vec2ForCTC.from_pretrained(model)
    same = all(
        torch.equal(a, b) for a, b in zip(tiny.state_dict().values(), again.state_dict().values())
    )
    Dataset.from_dict({"text": ["hej", "dav"]}).push_to_hub("tester/texts", split="test")
    texts = load_dataset("tester/texts", split="test")["text"]
    return {
        "files": sorted(api.list_repo_files(model)),
        "same": same,
        "me": api.whoami()["name"],
        "texts": list(texts),
        "commits": len(api.list_repo_commits(model)),
    }


def lean_columns(revision: str) -> list[list[str]]:
    "What is asked of the files before a sample of a stream, and before a cut by speaker, is read."
    from asr_nb.preprocessing.sources import hub

    asked, load = [], hub.open_hub
    hub.open_hub = lambda options, **more: (
        asked.append(more.get("columns")) or load(options, **more)
    )
    try:
        told = {
            "streaming": True,
            "columns": {"text": "sentence"},
            "limit": 4,
            "revision": revision,
        }
        read("lab/three", revision="", **{name: told[name] for name in ("streaming", "limit")})
        read("lab/two", **told)
    finally:
        hub.open_hub = load
    return [sorted(columns) for columns in dict.fromkeys(tuple(c) for c in asked if c)]


def until_fine(repository: str) -> list[dict[str, Any]]:
    "Call again while it fails, as one would."
    calls = [read(repository)]
    while calls[-1]["error"] and len(calls) < 5:
        calls.append(read(repository))
    return calls


def cases(commits: dict[str, str]) -> dict[str, Callable[[], Any]]:
    "Every case by name."
    from asr_nb.preprocessing.sources import registry, hub

    old = commits["two_before"]
    return {
        "three": lambda: read("lab/three"),
        "three streamed": lambda: read("lab/three", streaming=True),
        "limit": lambda: read("lab/three", limit=4),
        "limit streamed": lambda: read("lab/three", streaming=True, limit=4),
        "limit of 6": lambda: read("lab/three", limit=6),
        "lean": lambda: lean_columns(old),
        "only test": lambda: read(
            "lab/three", splits={"train": "", "dev": "", "test": "validation"}
        ),
        "no dev": lambda: read("lab/two", revision=old),
        "no dev by id": lambda: read("lab/two", revision=old, split="id"),
        "no dev by id streamed": lambda: read("lab/two", revision=old, split="id", streaming=True),
        "newer": lambda: read("lab/two"),
        "aside": lambda: read("lab/two", revision=commits["two_aside"]),
        "resolved": lambda: [
            hub.resolve_revision("lab/two"),
            hub.resolve_revision("lab/two", old),
            registry.pin("hub", {"id": "lab/two", "limit": 3}),
        ],
        "config": lambda: read("lab/configs", config="read_aloud"),
        "converted": lambda: read("lab/script", revision="refs/convert/parquet", config="da_dk"),
        "converted streamed": lambda: read(
            "lab/script", revision="refs/convert/parquet", config="da_dk", streaming=True
        ),
        "patience": lambda: read("lab/patience"),
        "cut once": lambda: read("lab/cut-once"),
        "no config": lambda: read("lab/configs"),
        "wrong config": lambda: read("lab/configs", config="read-aloud"),
        "wrong folder": lambda: read("lab/script", revision="refs/convert/parquet", config="da-dk"),
        "wrong split": lambda: read("lab/three", splits={"test": "tset"}),
        "wrong column": lambda: read("lab/three", columns={"text": "sentense"}),
        "no column": lambda: read("lab/three", columns={}, streaming=True),
        "wrong revision": lambda: read("lab/three", revision="v9"),
        "wrong commit": lambda: read("lab/three", revision="0" * 40),
        "unknown": lambda: read("lab/thre"),
        "unknown to nobody": lambda: as_nobody(lambda: read("lab/thre")),
        "gated": lambda: read("lab/gated"),
        "gated to nobody": lambda: as_nobody(lambda: read("lab/gated", streaming=True)),
        "gated and pinned": lambda: as_nobody(lambda: read("lab/gated", revision=commits["gated"])),
        "expired": lambda: as_nobody(lambda: read("lab/three"), "hf_expired"),
        "limited": lambda: read("lab/limited"),
        "limited later": lambda: read("lab/later"),
        "broken": lambda: read("lab/broken", streaming=True),
        "cut": lambda: until_fine("lab/cut"),
        "cut streamed": lambda: read("lab/cut-stream", streaming=True, dev_share=0),
        "script": lambda: read("lab/script"),
        "empty": lambda: read("lab/empty"),
        "overlap": lambda: read("lab/overlap"),
        "overlap dropped": lambda: read("lab/overlap", leaks="drop", dev_share=0),
        "spoilt": lambda: read("lab/spoilt", max_quarantine=0.9),
        "spoilt refused": lambda: read("lab/spoilt"),
        "push": push,
    }


def second_process() -> None:
    "Run the cases, with the libraries' waits cut short; one JSON object on standard output."
    import datasets

    wait, began = time.sleep, time.monotonic()
    time.sleep = lambda seconds: wait(min(seconds, SHORT_WAIT))
    datasets.config.STREAMING_READ_MAX_RETRIES = datasets.config.STREAMING_OPEN_MAX_RETRIES = 2
    datasets.disable_progress_bars()
    commits, wanted = json.loads(sys.argv[1]), sys.argv[2:]
    found = {
        name: case()
        for name, case in cases(commits).items()
        if (name in wanted if wanted else name != "aside")
    }
    print(json.dumps({**found, "seconds": time.monotonic() - began}))


def run_cases(
    url: str, home: Path, commits: dict[str, str], *names: str, **more: str
) -> dict[str, Any]:
    import fake_hub

    environment = {
        **fake_hub.env(url, home),
        "OMP_NUM_THREADS": "1",
        "PYTHONPATH": str(TESTS.parent),
        **more,
    }
    done = subprocess.run(
        [sys.executable, __file__, json.dumps(commits), *names],
        env=environment,
        cwd=home,
        text=True,
        capture_output=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(done.stdout.splitlines()[-1])


# The first process: it serves, and judges


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    "What every case saw; then once more what is in the cache, with the Hub switched off."
    sys.path.insert(0, str(TESTS))
    import fake_hub

    home = tmp_path_factory.mktemp("home")
    with fake_hub.serve() as (hub, url):
        commits = fill(hub)
        commits["gated"] = hub.repositories["dataset", "lab/gated"].branches["main"]
        seen = run_cases(url, home, commits)
        seen["pushed"] = {
            path: len(content) for path, content in hub.files("model", "tester/adapter").items()
        }
        before = len(hub.log)
        seen["offline"] = run_cases(url, home, commits, *OFFLINE, HF_HUB_OFFLINE="1")
        seen["offline requests"] = len(hub.log) - before
    return {**seen, "commits": commits}


def sizes(seen: dict[str, Any]) -> dict[str, int]:
    assert not seen["error"], seen["error"]
    return {split: len(ids) for split, ids in seen["ids"].items()}


def line(seen: dict[str, Any]) -> str:
    "The line a case was refused with."
    assert seen["kind"] in ("HubError", "BadInput"), seen
    assert "\n" not in seen["error"] and "hf_dummy" not in seen["error"], seen
    return seen["error"]


def test_reads_the_splits_there_are(served: dict[str, Any]) -> None:
    assert (
        sizes(served["three"])
        == sizes(served["three streamed"])
        == {"test": 10, "dev": 10, "train": 60}
    )
    assert served["three"]["ids"] == served["three streamed"]["ids"]
    assert sizes(served["only test"]) == {"test": 10}
    assert sizes(served["config"])["test"] == 10
    assert served["three"]["left_out"] == {}


def test_a_limit_takes_so_many_of_each(served: dict[str, Any]) -> None:
    for name in ("limit", "limit streamed"):
        assert sizes(served[name]) == {"test": 4, "dev": 4, "train": 4}
    assert served["limit"]["ids"] == served["limit streamed"]["ids"], "by the hash of the id"
    assert served["limit"]["ids"]["train"] != ["id-0", "id-1", "id-2", "id-3"], "not the first rows"
    for split, ids in served["limit"]["ids"].items():
        assert set(ids) <= set(served["limit of 6"]["ids"][split]), (
            "a larger sample has the smaller one in it"
        )


def test_a_limit_of_a_stream_reads_the_ids_on_their_own_first(served: dict[str, Any]) -> None:
    assert served["lean"] == [["id"], ["id", "speaker"]]


def test_a_missing_dev_set_is_cut_from_train(served: dict[str, Any]) -> None:
    found = served["no dev by id"]["ids"]
    assert len(found["dev"]) + len(found["train"]) == 60 and len(found["test"]) == 10
    assert 1 <= len(found["dev"]) <= 15
    assert {split: set(ids) for split, ids in found.items()} == {
        split: set(ids) for split, ids in served["no dev by id streamed"]["ids"].items()
    }


def test_where_rows_name_speakers_a_speaker_is_cut_whole(served: dict[str, Any]) -> None:
    found = {
        split: {int(id.removeprefix("id-")) % 5 for id in ids}
        for split, ids in served["no dev"]["ids"].items()
    }
    assert found["dev"] and found["train"] and not found["dev"] & found["train"], (
        "speakers, five of them"
    )


def test_a_revision_is_pinned(served: dict[str, Any]) -> None:
    newest, old, pinned = served["resolved"]
    assert old == served["commits"]["two_before"] != newest and len(newest) == 40
    assert pinned == {"id": "lab/two", "limit": 3, "revision": newest}
    assert sum(sizes(served["newer"]).values()) == 20, "main is another data set by now"


def test_the_hubs_own_conversion_is_read_by_folder(served: dict[str, Any]) -> None:
    for name in ("converted", "converted streamed"):
        found = sizes(served[name])
        assert sum(found.values()) == 70 and found["test"] == 10, "one language, not all of them"


def test_what_passes_is_waited_for(served: dict[str, Any]) -> None:
    for name in ("patience", "cut once"):
        assert sum(sizes(served[name]).values()) == 70, name


@pytest.mark.parametrize(
    "name, said",
    [
        ("no config", ["config", "conversation, read_aloud"]),
        ("wrong config", ["config", "'read-aloud'", "did you mean read_aloud"]),
        ("wrong folder", ["config", "did you mean da_dk"]),
        ("wrong split", ["splits.test", "did you mean test"]),
        ("wrong column", ["columns.text", "did you mean sentence"]),
        ("no column", ["columns.text", "allowed: audio, id, sentence, speaker"]),
        ("wrong revision", ["revision", "'v9'", "lab/three has no such branch, tag or commit"]),
        ("wrong commit", ["lab/three", "no such revision"]),
        ("unknown", ["'lab/thre'", "no dataset of that name", "HF_TOKEN"]),
        ("unknown to nobody", ["'lab/thre'", "no dataset of that name", "HF_TOKEN"]),
        ("gated", ["gated", "was not let in", "https://huggingface.co/datasets/lab/gated"]),
        ("gated to nobody", ["gated", "accept its terms", "set HF_TOKEN"]),
        ("gated and pinned", ["gated", "accept its terms", "set HF_TOKEN"]),
        ("expired", ["HF_TOKEN", "expired"]),
        ("limited", ["429", "wait", "HF_TOKEN"]),
        ("limited later", ["429", "wait", "arrived whole are kept"]),
        ("broken", ["500", "try again later"]),
        ("cut streamed", ["connection", "60 rows of 'train' had been read", "begins anew"]),
        ("script", ["script", "refs/convert/parquet"]),
        ("empty", ["lab/empty", "no data files"]),
        ("overlap", ["test and train overlap", "5 of 65", "leaks: drop"]),
        ("spoilt refused", ["4 of 5 utterances", "max_quarantine"]),
    ],
)
def test_one_clear_line(served: dict[str, Any], name: str, said: list[str]) -> None:
    for part in said:
        assert part in line(served[name]), served[name]


def test_half_way_through_it_says_so_and_goes_on_when_called_again(served: dict[str, Any]) -> None:
    first, *_, last = served["cut"]
    assert "connection" in line(first) and "arrived whole are kept" in line(first)
    assert sum(sizes(last).values()) == 70


def test_bad_rows_are_left_out_with_their_reason(served: dict[str, Any]) -> None:
    assert sizes(served["spoilt"]) == {"test": 1}
    assert collections.Counter(served["spoilt"]["left_out"]) == {
        "truncated": 1,
        "silent": 1,
        "empty": 1,
        "audio_missing": 1,
    }
    assert sizes(served["overlap dropped"]) == {"test": 5, "train": 55}
    assert served["overlap dropped"]["left_out"] == {"leaked": 5}


def test_what_is_cached_and_pinned_needs_no_hub(served: dict[str, Any]) -> None:
    assert served["offline"]["no dev"]["ids"] == served["no dev"]["ids"]
    assert "HF_HUB_OFFLINE" in line(served["offline"]["newer"])
    assert "HF_HUB_OFFLINE" in line(served["offline"]["aside"]), (
        "not the other revision that lies in the cache"
    )
    assert served["offline requests"] == 0


def test_the_hub_takes_what_is_pushed(served: dict[str, Any]) -> None:
    seen = served["push"]
    assert seen["same"] and seen["me"] == "tester" and seen["texts"] == ["hej", "dav"]
    assert {"README.md", "config.json", "model.safetensors"} <= set(
        seen["files"]
    ) and "oops.txt" not in seen["files"]
    assert seen["commits"] == 5 and served["pushed"]["model.safetensors"] > 1000


if __name__ == "__main__":
    second_process()
