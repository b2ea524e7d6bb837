"""The whole way on a Hub on loopback: from `asr-nb run` on a data set and a model there, to `asr-nb card --push`.

Two lines of commands go side by side, to fit the time: the story of one experiment, and experiments that fail. What
needs no command of its own is seen by a process of its own, this same file, which cuts the client library's waits short.
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
from pathlib import Path
from typing import Any

import pytest

TESTS = Path(__file__).parent
SHORT_WAIT = 0.02   # s; every wait of the second process is cut to this
DATA, MODEL, MINE = "tester/calls", "tester/whisper-micro", "tester/my-adapter"
SPLITS = {"train": "train", "dev": "validation", "test": "test"}   # ours -> theirs
COUNTS = {"train": 24, "dev": 6, "test": 12}


# What the Hub holds


def calls() -> dict[str, bytes]:
    "A small corpus of Danish telephone speech, without ids."
    from asr_nb.preprocessing.synthetic import utterances
    from helpers import parquet

    made = utterances("da", {"channel": "phone", "seed": 1, **COUNTS})
    files = {}
    for ours, theirs in SPLITS.items():
        rows = [row for row in made if row.split == ours]
        files[f"data/{theirs}-00000-of-00001.parquet"] = parquet({
            "sentence": [row.text for row in rows], "speaker": [row.speaker for row in rows],
            "audio": [{"bytes": row.audio, "path": None} for row in rows]})
    return files


def fill(hub: Any) -> dict[str, str]:
    "Put data sets and models there, some of them out of order; the commits of the two in use."
    data = calls()
    micro = {path.name: path.read_bytes() for path in sorted((TESTS.parent / "asr_nb" / "micro").iterdir())}
    commits = {"data": hub.put("dataset", DATA, data), "model": hub.put("model", MODEL, micro)}
    hub.put("dataset", "tester/cut", data)
    hub.cut("dataset", "tester/cut")
    for name in ("gated", "limited", "broken", "cut", "cut-once"):
        hub.put("model", f"tester/{name}", micro)
    hub.gate("model", "tester/gated")
    hub.fail("model", "tester/limited", 429)
    hub.fail("model", "tester/broken", 500)
    hub.cut("model", "tester/cut")
    hub.cut("model", "tester/cut-once", times=1)
    weightless = {name: content for name, content in micro.items() if name != "model.safetensors"}
    hub.put("model", "tester/pickled", {**weightless, "pytorch_model.bin": b"never to be read"})
    hub.put("model", "tester/not-mine", {"README.md": b""})
    hub.fail("model", "tester/not-mine", 403)
    return commits


def move_on(hub: Any) -> None:
    "New commits, as somebody else makes them meanwhile: neither can be used."
    hub.put("model", MODEL, {"config.json": b'{"model_type": "bert"}'}, title="another model")
    hub.put("dataset", DATA, {path: b"" for path in hub.files("dataset", DATA)}, title="emptied")


# The second process: it prints what it saw


def loads(source: str, **choices: Any) -> str:
    "What comes of loading a model: its commit, or the line that was said."
    from asr_nb.checks import BadInput
    from asr_nb.models.family import load

    try:
        return load(source, **choices).revision
    except BadInput as error:
        return str(error)


def without_token(action: Callable[[], Any]) -> Any:
    before = os.environ.pop("HF_TOKEN")
    try:
        return action()
    finally:
        os.environ["HF_TOKEN"] = before


def pushes(run: Path, repository: str) -> dict[str, Any]:
    "What `asr-nb card RUN --push` answers."
    from asr_nb import cli

    said, sys.argv = io.StringIO(), ["asr-nb", "card", str(run), "--push", repository]
    with contextlib.redirect_stderr(said), contextlib.redirect_stdout(said):
        try:
            cli.main()
        except SystemExit as end:
            return {"code": end.code or 0, "said": said.getvalue()}
    return {"code": 0, "said": said.getvalue()}


def hears(prepared: Path, revision: str) -> dict[str, list[str]]:
    "What the pushed adapter hears in the test set, loaded as asr_nb loads it, and as peft does."
    from asr_nb.models.family import Decoding, load
    from asr_nb.runs.prepared import open_set
    from huggingface_hub import snapshot_download
    from peft import PeftModel

    whole, bare = load(MODEL, revision=revision, adapter=snapshot_download(MINE)), load(MODEL, revision=revision)
    examples, decoding = open_set(prepared / "store" / "calls").examples(bare, "test"), Decoding(batch_size=32)
    found = {"untouched": bare.decode(examples, decoding), "asr_nb": whole.decode(examples, decoding)}
    bare.model = PeftModel.from_pretrained(bare.model, MINE)
    found["peft"] = bare.decode(examples, decoding)
    return {name: [one.text for one in heard] for name, heard in found.items()}


def second_process(train: Path, prepared: Path, revision: str) -> None:
    "Load, push and listen; one JSON object on standard output."
    wait = time.sleep
    time.sleep = lambda seconds: wait(min(seconds, SHORT_WAIT))
    names = ("none-such", "gated", "limited", "broken", "cut", "cut-once", "pickled")
    print(json.dumps({
        "loads": {name: loads(f"tester/{name}") for name in names}
        | {"gated to nobody": without_token(lambda: loads("tester/gated")), "whatever is newest": loads(MODEL),
           "wrong revision": loads(MODEL, revision="v9")},
        "pushes": {"not mine": pushes(train, "tester/not-mine"), "no owner": pushes(train, "my-adapter"),
                   "nobody": without_token(lambda: pushes(train, "tester/another")), "again": pushes(train, MINE)},
        "hears": hears(prepared, revision)}))


# The first process: it serves, calls the commands, and judges


class Place:
    "A folder to run in against one Hub; every call has waits cut as far as a user can."

    def __init__(self, folder: Path, url: str):
        self.folder, self.url, self.runs = folder, url, folder / "runs"

    def experiment(self, name: str, also: Mapping[str, str] | None = None, **options: Any) -> Path:
        "Write the YAML file of an experiment on the corpus, with a further model perhaps."
        told = {"id": DATA, "splits": SPLITS, "columns": {"text": "sentence", "speaker": "speaker"}, **options}
        path = self.folder / f"{name}.yaml"
        path.write_text(json.dumps({
            "name": name, "question": "Does the whole way go over the Hub?",
            "corpus": {"name": "calls", "source": "hub", "language": "da", "options": told},
            "models": [{"name": "hub-micro", "source": MODEL}, *([also] if also else [])],
            "recipes": [{"name": "quick", "base": "lora-all", "steps": 4, "evaluations": 2}]}))
        return path

    def environment(self, home: str = "home", token: str = "hf_dummy") -> dict[str, str]:
        import fake_hub

        ours = {"ASR_NB_RETRY_WAITS": "", "OMP_NUM_THREADS": "1", "PYTHONPATH": str(TESTS.parent), "HF_TOKEN": token}
        return {**fake_hub.env(self.url, self.folder / home), **ours}

    def call(self, *words: str | Path, **who: str) -> Any:
        from conftest import command

        return command(*map(str, words), cwd=self.folder, timeout=300, **self.environment(**who))

    def prepare(self, path: Path, **who: str) -> dict[str, Any]:
        "What the prepare stage of an experiment answers and leaves."
        said = self.call("run", path, "--out", self.runs, "--stage", "prepare", **who)
        (folder,) = sorted((self.runs / path.stem).glob("prepare-*"))
        return {"said": said, "folder": folder}


def hashes(folder: Path) -> dict[str, str]:
    return {path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
            for path in sorted(folder.rglob("*")) if path.is_file()}


def tell_story(place: Place, hub: Any, commits: Mapping[str, str]) -> dict[str, Any]:
    "Prepare; let the Hub move on and lose the cache; run the rest; fail with a further model; publish."
    from conftest import run_folders

    seen: dict[str, Any] = {"prepare": place.prepare(place.experiment("calls"))}
    move_on(hub)
    before = len(hub.log)
    seen["run"] = place.call("run", place.experiment("calls"), "--out", place.runs, home="new-home")
    seen["asked"] = [path for _, path, _ in hub.log[before:] if MODEL in path or DATA in path]
    folders = seen["folders"] = run_folders(place.runs / "calls")
    finished = {name: hashes(folder) for name, folder in folders.items()}
    unknown = {"name": "unknown", "source": "tester/whisper-mikro"}
    seen["unknown"] = place.call("run", place.experiment("calls", also=unknown), "--out", place.runs)
    seen["unchanged"] = {name: hashes(folders[name]) == found for name, found in finished.items()}
    seen["push"] = place.call("card", folders["train-hub-micro-quick"], "--push", MINE)
    seen["pushed"] = dict(hub.files("model", MINE))
    return seen


def go_wrong(place: Place, commits: Mapping[str, str]) -> dict[str, Any]:
    "Prepare as a stream, then what can't be prepared."
    pinned = {"revision": commits["data"]}   # the other line of commands moves main
    return {
        "streamed": place.prepare(place.experiment("streamed", streaming=True, **pinned)),
        "no data": place.prepare(place.experiment("no-data", id="tester/cals")),
        "no column": place.prepare(place.experiment("no-column", columns={"text": "sentense"}, **pinned)),
        "cut": place.prepare(place.experiment("cut", id="tester/cut")),
        "gated": place.prepare(place.experiment("gated", also={"name": "g", "source": "tester/gated"}), token=""),
    }
