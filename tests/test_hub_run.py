"""The whole way on a Hub on loopback: from `asr-nb run` on a data set and a model there to
`asr-nb card --push`.

Two lines of commands go side by side, to fit the time: the story of one experiment, and experiments
that fail. One more process, this same file, does the rest; it cuts the client library's waits.
"""

import contextlib
import hashlib
import io
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import nbformat
import pytest

TESTS = Path(__file__).parent
SHORT_WAIT = 0.02  # s; every wait of the second process is cut to this
DATA, MODEL, MINE = "tester/calls", "tester/whisper-micro", "tester/my-adapter"
SPLITS = {"train": "train", "dev": "validation", "test": "test"}  # ours -> theirs
COUNTS = {"train": 24, "dev": 6, "test": 12}
PASSING = {"busy": (429, 2), "restarting": (500, 2), "busy-longer": (429, 3)}  # status, times


# What the Hub holds


def calls() -> dict[str, bytes]:
    "A small corpus of Danish telephone speech, without ids."
    from helpers import parquet

    from asr_nb.preprocessing.sources.synthetic import utterances

    made = utterances("da", {"channel": "phone", "seed": 1, **COUNTS})
    files = {}
    for ours, theirs in SPLITS.items():
        rows = [row for row in made if row.split == ours]
        files[f"data/{theirs}-00000-of-00001.parquet"] = parquet(
            {
                "sentence": [row.text for row in rows],
                "speaker": [row.speaker for row in rows],
                "audio": [{"bytes": row.audio, "path": None} for row in rows],
            }
        )
    return files


def fill(hub: Any) -> dict[str, str]:
    "Put data sets and models there, some of them out of order; the commits of the two in use."
    data = calls()
    micro = {
        path.name: path.read_bytes()
        for path in sorted((TESTS.parent / "asr_nb" / "micro").iterdir())
    }
    commits = {"data": hub.put("dataset", DATA, data), "model": hub.put("model", MODEL, micro)}
    hub.put("dataset", "tester/cut", data)
    hub.cut("dataset", "tester/cut")
    for name in ("gated", "limited", "broken", "cut", "cut-once", *PASSING):
        hub.put("model", f"tester/{name}", micro)
    hub.gate("model", "tester/gated")
    hub.fail("model", "tester/limited", 429)
    hub.fail("model", "tester/broken", 500)
    hub.cut("model", "tester/cut")
    hub.cut("model", "tester/cut-once", times=1)
    for name, (status, times) in PASSING.items():
        hub.fail("model", f"tester/{name}", status, times=times)
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


def with_patience(action: Callable[[], Any]) -> Any:
    "With two tries more, as a user has them who sets no other number."
    before, os.environ["ASR_NB_RETRY_WAITS"] = os.environ["ASR_NB_RETRY_WAITS"], "1,1"
    try:
        return action()
    finally:
        os.environ["ASR_NB_RETRY_WAITS"] = before


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


def hears(prepared: Path, revision: str) -> dict[str, dict[str, str]]:
    """What the pushed adapter hears in each test utterance, loaded as asr_nb loads it, and as peft
    does."""
    from huggingface_hub import snapshot_download
    from peft import PeftModel

    from asr_nb.models.family import Decoding, load
    from asr_nb.preprocessing.store.prepared import open_set

    whole, bare = (
        load(MODEL, revision=revision, adapter=snapshot_download(MINE)),
        load(MODEL, revision=revision),
    )
    examples, decoding = (
        open_set(prepared / "store" / "calls").examples(bare, "test"),
        Decoding(batch_size=32),
    )
    found = {
        "untouched": bare.decode(examples, decoding),
        "asr_nb": whole.decode(examples, decoding),
    }
    bare.model = PeftModel.from_pretrained(bare.model, MINE)
    found["peft"] = bare.decode(examples, decoding)
    return {
        name: {example.id: one.text for example, one in zip(examples, heard, strict=True)}
        for name, heard in found.items()
    }


def second_process(train: Path, prepared: Path, revision: str) -> None:
    "Load, push and listen; one JSON object on standard output."
    wait = time.sleep
    time.sleep = lambda seconds: wait(min(seconds, SHORT_WAIT))
    names = ("none-such", "gated", "limited", "broken", "cut", "cut-once", "pickled")
    print(
        json.dumps(
            {
                "loads": {name: loads(f"tester/{name}") for name in names}
                | {
                    name: with_patience(lambda name=name: loads(f"tester/{name}"))
                    for name in PASSING
                }
                | {
                    "gated to nobody": without_token(lambda: loads("tester/gated")),
                    "whatever is newest": loads(MODEL),
                    "wrong revision": loads(MODEL, revision="v9"),
                },
                "pushes": {
                    "not mine": pushes(train, "tester/not-mine"),
                    "no owner": pushes(train, "my-adapter"),
                    "nobody": without_token(lambda: pushes(train, "tester/another")),
                    "again": pushes(train, MINE),
                },
                "hears": hears(prepared, revision),
            }
        )
    )


# The first process: it serves, calls the commands, and judges


class Place:
    "A folder to run in against one Hub; every call has waits cut as far as a user can."

    def __init__(self, folder: Path, url: str):
        self.folder, self.url, self.runs = folder, url, folder / "runs"

    def experiment(self, name: str, commit: str = "", also: str = "", **options: Any) -> Path:
        """Write the YAML file of an experiment on the corpus: the model's commit, a further model,
        the corpus's options."""
        told = {
            "id": DATA,
            "splits": SPLITS,
            "columns": {"text": "sentence", "speaker": "speaker"},
            **options,
        }
        path = self.folder / f"{name}.yaml"
        path.write_text(
            json.dumps(
                {
                    "name": name,
                    "question": "Does the whole way go over the Hub?",
                    "corpus": {"name": "calls", "source": "hub", "language": "da", "options": told},
                    "models": [
                        {"name": "hub-micro", "source": MODEL, "revision": commit},
                        *([{"name": "further", "source": also}] if also else []),
                    ],
                    "recipes": [
                        {"name": "quick", "base": "lora-all", "steps": 4, "evaluations": 2}
                    ],
                }
            )
        )
        return path

    def environment(self, home: str = "home", token: str = "hf_dummy") -> dict[str, str]:
        import fake_hub

        ours = {
            "ASR_NB_RETRY_WAITS": "",
            "OMP_NUM_THREADS": "1",
            "PYTHONPATH": str(TESTS.parent),
            "HF_TOKEN": token,
        }
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
    return {
        path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def tell_story(place: Place, hub: Any) -> dict[str, Any]:
    """Prepare; let the Hub move on and lose the cache; run the rest; fail with a further model;
    publish."""
    from conftest import run_folders

    seen: dict[str, Any] = {"prepare": place.prepare(place.experiment("calls"))}
    move_on(hub)
    before = len(hub.log)
    seen["run"] = place.call("run", place.experiment("calls"), "--out", place.runs, home="new-home")
    assert seen["run"].code == 0, seen["run"].err
    seen["asked"] = [path for _, path, _ in hub.log[before:] if MODEL in path]
    folders = seen["folders"] = run_folders(place.runs / "calls")
    finished = {name: hashes(folder) for name, folder in folders.items()}
    seen["unknown"] = place.call(
        "run", place.experiment("calls", also="tester/whisper-mikro"), "--out", place.runs
    )
    seen["unchanged"] = {name: hashes(folders[name]) == found for name, found in finished.items()}
    seen["push"] = place.call("card", folders["train-hub-micro-quick"], "--push", MINE)
    assert seen["push"].code == 0, seen["push"].err
    seen["pushed"] = dict(hub.files("model", MINE))
    return seen


def go_wrong(place: Place, commits: Mapping[str, str]) -> dict[str, Any]:
    "Prepare as a stream, then what can't be prepared."

    def prepare(name: str, token: str = "hf_dummy", **changes: Any) -> dict[str, Any]:
        options = {"revision": commits["data"], **changes}  # the other line of commands moves main
        return place.prepare(place.experiment(name, commits["model"], **options), token=token)

    return {
        "streamed": prepare("streamed", streaming=True),
        "no data": prepare("no-data", id="tester/cals", revision=""),
        "no column": prepare("no-column", columns={"text": "sentense"}),
        "cut": prepare("cut", id="tester/cut", revision=""),
        "gated": prepare("gated", also="tester/gated", token=""),
    }


@pytest.fixture(scope="module")
def seen(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    "What every command answered and left."
    import fake_hub

    with fake_hub.serve() as (hub, url), ThreadPoolExecutor() as pool:
        place, commits = Place(tmp_path_factory.mktemp("hub_run"), url), fill(hub)
        wrong = pool.submit(go_wrong, place, commits)
        told = tell_story(place, hub)
        folders = told["folders"]
        words = [__file__, folders["train-hub-micro-quick"], folders["prepare"], commits["model"]]
        done = subprocess.run(
            [sys.executable, *map(str, words)],
            env=place.environment(),
            cwd=place.folder,
            text=True,
            capture_output=True,
            timeout=300,
            check=False,
        )
        assert done.returncode == 0, done.stderr[-3000:]
        return {
            **told,
            **wrong.result(),
            **json.loads(done.stdout.splitlines()[-1]),
            "commits": commits,
            "runs": place.runs,
        }


def result(folder: Path) -> dict[str, Any]:
    return json.loads((folder / "result.json").read_text(encoding="utf-8"))


def the_line(text: str) -> str:
    "The only line that says what can't be used."
    assert "Traceback" not in text and "hf_dummy" not in text, text
    (line,) = [line for line in text.splitlines() if "can't be used" in line]
    return line


def test_every_stage_finishes(seen: dict[str, Any]) -> None:
    for name in ("prepare", "streamed"):
        assert seen[name]["said"].code == 0, seen[name]["said"].err
    assert "skipped  prepare-" in seen["run"].err
    names = [
        "audit",
        "baseline-hub-micro",
        "card",
        "evaluate-hub-micro-quick",
        "prepare",
        "train-hub-micro-quick",
    ]
    assert sorted(seen["folders"]) == names
    assert {result(folder)["status"] for folder in seen["folders"].values()} == {"finished"}
    assert (
        result(seen["folders"]["baseline-hub-micro"])["metrics"]["calls.wer"]["n"] == COUNTS["test"]
    )


def test_the_commits_of_the_first_stage_stay(seen: dict[str, Any]) -> None:
    inputs, commits = result(seen["folders"]["prepare"])["inputs"], seen["commits"]
    assert (
        inputs["calls.revision"] == commits["data"]
        and inputs["model.hub-micro.revision"] == commits["model"]
    )
    assert all(len(sha) == 40 for sha in commits.values())
    assert any(path.endswith("model.safetensors") for path in seen["asked"]), (
        "the cache was gone, so it was read again"
    )
    assert all(commits["model"] in path for path in seen["asked"]), seen["asked"]
    assert "bert" in seen["loads"]["whatever is newest"], "and the newest can't be used at all"


def test_a_stream_is_the_same_corpus(seen: dict[str, Any]) -> None:
    whole, streamed = (
        result(folder) for folder in (seen["folders"]["prepare"], seen["streamed"]["folder"])
    )
    assert whole["inputs"]["calls.manifest"] == streamed["inputs"]["calls.manifest"]
    manifest = seen["streamed"]["folder"] / "store" / "calls" / "manifest.jsonl"
    rows = [json.loads(line) for line in manifest.read_text(encoding="utf-8").splitlines()]
    assert {split: sum(row["split"] == split for row in rows) for split in COUNTS} == COUNTS
    assert all(row["speaker"] and row["id"] for row in rows)


def test_what_is_published(seen: dict[str, Any]) -> None:
    assert "/tester/my-adapter/commit/" in seen["push"].out
    assert set(seen["pushed"]) == {
        ".gitattributes",
        "README.md",
        "adapter_config.json",
        "adapter_model.safetensors",
        "processor_config.json",
        "tokenizer.json",
        "tokenizer_config.json",
    }
    folder = seen["folders"]["train-hub-micro-quick"] / "model"
    assert (
        seen["pushed"]["adapter_model.safetensors"]
        == (folder / "adapter_model.safetensors").read_bytes()
    )
    assert json.loads(seen["pushed"]["adapter_config.json"])["base_model_name_or_path"] == MODEL


def test_the_card_says_where_it_comes_from_and_how_well_it_does(seen: dict[str, Any]) -> None:
    from huggingface_hub import ModelCard

    card = ModelCard(seen["pushed"]["README.md"].decode())
    wer = result(seen["folders"]["evaluate-hub-micro-quick"])["metrics"]["calls.wer"]
    (found,) = card.data.eval_results
    assert (
        card.data.base_model == MODEL
        and card.data.datasets == [DATA]
        and card.data.library_name == "peft"
    )
    assert (found.dataset_type, found.dataset_revision) == (DATA, seen["commits"]["data"])
    assert found.metric_value == round(100 * wer["value"], 2)
    assert found.metric_args == {
        "low": round(100 * wer["low"], 2),
        "high": round(100 * wer["high"], 2),
        "n": wer["n"],
    }
    assert all(commit in card.text for commit in seen["commits"].values())


def test_what_was_published_hears_what_was_evaluated(seen: dict[str, Any]) -> None:
    predictions = (seen["folders"]["evaluate-hub-micro-quick"] / "predictions.jsonl").read_text(
        encoding="utf-8"
    )
    rows = map(json.loads, predictions.splitlines())
    evaluated = {row["id"]: row["hypothesis"] for row in rows if row["test_set"] == "calls"}
    assert len(evaluated) == COUNTS["test"]
    assert seen["hears"]["asr_nb"] == seen["hears"]["peft"] == evaluated
    assert seen["hears"]["untouched"] != evaluated, "four steps change something"


@pytest.mark.parametrize(
    "name, told",
    [
        ("no data", ["tester/cals", "no dataset of that name", "HF_TOKEN"]),
        ("no column", ["calls.options.columns.text", "sentense", "did you mean sentence"]),
        ("cut", ["tester/cut", "connection", "arrived whole are kept"]),
        ("gated", ["tester/gated", "accept its terms", "set HF_TOKEN"]),
    ],
)
def test_a_prepare_that_fails_says_why_in_one_line(
    seen: dict[str, Any], name: str, told: list[str]
) -> None:
    said, folder = seen[name]["said"], seen[name]["folder"]
    assert said.code == 2, said.err
    for words in told:
        assert words in the_line(said.err)
    notebook = nbformat.read(folder / "prepare.ipynb", as_version=4)
    nbformat.validate(notebook)
    assert "RUN DID NOT FINISH" in notebook.cells[0].source and told[0] in notebook.cells[0].source
    assert result(folder)["status"] == "failed" and told[0] in result(folder)["verdict"]


def test_a_further_model_that_fails_costs_nothing_that_was_finished(seen: dict[str, Any]) -> None:
    assert seen["unknown"].code == 2
    for words in ("tester/whisper-mikro", "no model of that name", "HF_TOKEN"):
        assert words in the_line(seen["unknown"].err)
    assert all(seen["unchanged"].values()), seen["unchanged"]


@pytest.mark.parametrize(
    "name, told",
    [
        ("none-such", ["tester/none-such", "no such model on the Hub", "HF_TOKEN"]),
        ("gated", ["tester/gated", "https://huggingface.co/tester/gated", "HF_TOKEN"]),
        ("gated to nobody", ["tester/gated", "https://huggingface.co/tester/gated", "HF_TOKEN"]),
        ("limited", ["tester/limited", "429", "wait"]),
        ("broken", ["tester/broken", "500", "try again later"]),
        ("cut", ["tester/cut", "connection"]),
        ("pickled", ["tester/pickled", "safetensors"]),
        ("wrong revision", ["v9", MODEL, "no such branch, tag or commit"]),
    ],
)
def test_a_model_that_can_not_be_had(seen: dict[str, Any], name: str, told: list[str]) -> None:
    line = the_line(seen["loads"][name])
    assert line == seen["loads"][name]
    for words in told:
        assert words in line


@pytest.mark.parametrize("name", ["cut-once", "busy", "restarting"])
def test_a_passing_fault_of_a_model_is_waited_for(seen: dict[str, Any], name: str) -> None:
    assert len(seen["loads"][name]) == 40, seen["loads"][name]


def test_patience_with_a_model_ends(seen: dict[str, Any]) -> None:
    assert "429" in the_line(seen["loads"]["busy-longer"])


@pytest.mark.parametrize(
    "name, told",
    [
        ("nobody", ["tester/another", "401", "set HF_TOKEN"]),
        ("not mine", ["tester/not-mine", "403", "may it not do this"]),
        ("no owner", ["my-adapter", "owner/name"]),
    ],
)
def test_a_push_that_is_refused(seen: dict[str, Any], name: str, told: list[str]) -> None:
    assert seen["pushes"][name]["code"] == 2
    for words in told:
        assert words in the_line(seen["pushes"][name]["said"])


def test_a_second_push_is_a_new_commit(seen: dict[str, Any]) -> None:
    assert seen["pushes"]["again"]["code"] == 0, seen["pushes"]["again"]["said"]


def test_no_file_holds_the_token(seen: dict[str, Any]) -> None:
    holding = [
        path
        for path in seen["runs"].rglob("*")
        if path.is_file() and b"hf_dummy" in path.read_bytes()
    ]
    assert not holding and not any(b"hf_dummy" in content for content in seen["pushed"].values())


if __name__ == "__main__":
    second_process(Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3])
