"""The ready experiments, each on a small corpus of its own format: what is read of it, and what its
plan says.

Those of the Hub are read from a Hub on loopback. Its client reads the environment when it is
imported, so they are read in a second process, by this same file.
"""

import dataclasses
import json
import shutil
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest

TESTS = Path(__file__).parent
LAB = TESTS.parent / "nbs" / "lab" / "experiments"
HUB = ("coral-conversation", "coral-read-aloud", "fleurs-fr", "fleurs-any", "common-voice-parquet")
FOLDER = {
    "common-voice-local": "cv-corpus-21.0-2025-03-14/zh-CN",
    "korean-phone": "korean-phone",
    "private-calls": "private-calls",
}
RATE = 16_000
COUNTS = {"train": 6, "validation": 2, "test": 3}


def clip(number: int, container: str = "FLAC") -> bytes:
    "A fifth of a second of a tone of its own."
    from asr_nb.preprocessing.sound.audio import encode

    return encode(
        0.3 * np.sin(2 * np.pi * (100 + 7 * number) * np.arange(RATE // 5) / RATE), RATE, container
    )


# What the Hub holds


def split(begin: int, count: int, **columns: Any) -> bytes:
    "A split as parquet: a column is a function of the row's number, the audio is of one kind."
    from helpers import parquet

    numbers = range(begin, begin + count)
    values = {name: [value(n) for n in numbers] for name, value in columns.items()}
    return parquet({**values, "audio": [{"bytes": clip(n), "path": f"{n}.wav"} for n in numbers]})


CORAL = {
    "id_recording": lambda n: f"rec_{n}",
    "id_speaker": lambda n: f"spe_{n // 2}",
    "text": lambda n: f"det er nummer {n}",
    "dialect": lambda n: "fynsk",
    "gender": lambda n: "female",
    "age": lambda n: "43",
    "location": lambda n: "a room",
}
TALK = {
    **CORAL,
    "id_conversation": lambda n: f"conv_{n // 3}",
    "id_speaker": lambda n: f"talker_{n // 2}",
}
FLEURS = {
    "id": lambda n: str(n // 3),
    "num_samples": lambda n: "3200",
    "path": lambda n: f"{n}.wav",
    "gender": lambda n: "1",
    "transcription": lambda n: f"c'est le numéro {n}",
    "raw_transcription": lambda n: f"C'est le numéro {n}.",
    "lang_id": lambda n: "28",
    "language": lambda n: "French",
}
VOICE = {"sentence": lambda n: f"第{n}句"}
CORAL_CARD = (
    "---\nconfigs:\n"
    + "".join(
        f"- config_name: {name}\n  data_files:\n"
        + "".join(f"  - {{split: {part}, path: {name}/{part}.parquet}}\n" for part in COUNTS)
        for name in ("read_aloud", "conversation")
    )
    + "---\n"
)


def parts(begin: int, name: str, **columns: Any) -> dict[str, bytes]:
    "The three splits' files, each with rows of its own."
    files = {}
    for part, count in COUNTS.items():
        files[name.format(part)] = split(begin, count, **columns)
        begin += count + count % 2  # speakers have two rows
    return files


def fill(hub: Any) -> None:
    coral, voice = "CoRal-project/coral-v3", "keeve101/common-voice-21.0-2025-03-14-zh-CN-split"
    hub.put(
        "dataset",
        coral,
        {
            "README.md": CORAL_CARD.encode(),
            **parts(0, "read_aloud/{}.parquet", **CORAL),
            **parts(100, "conversation/{}.parquet", **TALK),
        },
    )
    hub.put("dataset", "google/fleurs", {"fleurs.py": b"raise SystemExit('ran')"})
    for language, begin in (("fr_fr", 200), ("da_dk", 300)):
        hub.put(
            "dataset",
            "google/fleurs",
            parts(begin, language + "/{}/0000.parquet", **FLEURS),
            branch="refs/convert/parquet",
        )
    hub.put(
        "dataset",
        voice,
        {
            path.replace("validation", "dev"): content
            for path, content in parts(400, "data/{}-00000-of-00001.parquet", **VOICE).items()
        },
    )


# The second process: it reads


def rows_of(spec: Any) -> list[dict[str, Any]]:
    """Every row of a set as read, its sound as long as it says; the chain that its steps leave on
    it."""
    from helpers import prepared_rows

    from asr_nb.preprocessing.corpus.utterances import Ledger
    from asr_nb.preprocessing.store.provenance import process
    from asr_nb.preprocessing.store.steps import steps_from

    ledger, rows, steps = Ledger(), [], steps_from(spec.process)
    for row, samples in prepared_rows(spec.source, spec.name, spec.language, spec.options, ledger):
        utterance, after = process(row, samples, steps)
        assert len(after) == len(samples) == RATE // 5
        fields = {
            name: getattr(row, name)
            for name in ("id", "text", "language", "speaker", "recording", "tags", "split")
        }
        rows.append({**fields, "chain": [step.split("@")[0] for step in utterance.audio_chain]})
    assert not ledger.rows, ledger.rows
    return rows


def second_process() -> None:
    """Read every set of the Hub's experiments; a commit that the loopback does not have gives way
    to its newest."""
    import datasets

    from asr_nb.runs.experiment import load_experiment

    datasets.disable_progress_bars()
    sets: dict[str, Any] = {}
    for name in HUB:
        for spec in (s for s in load_experiment(LAB / f"{name}.yaml").sets if s.source == "hub"):
            revision = spec.options["revision"]
            options = {**spec.options, "revision": "" if len(revision) == 40 else revision}
            sets[f"{name} {spec.name}"] = rows_of(dataclasses.replace(spec, options=options))
    print(json.dumps(sets))


@pytest.fixture(scope="module")
def read_from_hub(tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[dict[str, Any]]]:
    sys.path.insert(0, str(TESTS))
    import fake_hub

    home = tmp_path_factory.mktemp("home")
    with fake_hub.serve() as (hub, url):
        fill(hub)
        environment = {
            **fake_hub.env(url, home),
            "OMP_NUM_THREADS": "1",
            "PYTHONPATH": str(TESTS.parent),
        }
        process = subprocess.run(
            [sys.executable, __file__],
            env=environment,
            cwd=home,
            text=True,
            capture_output=True,
            timeout=120,
            check=False,
        )
    assert process.returncode == 0, process.stderr[-3000:]
    return json.loads(process.stdout.splitlines()[-1])


def sizes(rows: list[dict[str, Any]]) -> dict[str, int]:
    assert len({row["id"] for row in rows}) == len(rows)
    return dict(Counter(row["split"] for row in rows))


ALL = {"train": 6, "dev": 2, "test": 3}


def test_coral(read_from_hub: dict[str, list[dict[str, Any]]]) -> None:
    talk, read = (
        read_from_hub["coral-conversation conversation"],
        read_from_hub["coral-conversation read_aloud"],
    )
    assert sizes(talk) == ALL and sizes(read) == {"test": 3}, (
        "of what is only tested on, nothing else is read"
    )
    row = min(talk, key=lambda row: row["id"])
    assert row == {
        "id": "rec_100",
        "text": "det er nummer 100",
        "language": "da",
        "speaker": "talker_50",
        "recording": "conv_33",
        "split": "train",
        "tags": {"dialect": "fynsk", "gender": "female", "age": "43"},
        "chain": ["loudness", "telephone"],
    }
    assert {row["split"]: row["chain"] for row in talk} == {
        "train": ["loudness", "telephone"],
        "dev": ["loudness"],
        "test": ["loudness"],
    }
    assert sizes(read_from_hub["coral-read-aloud read_aloud"]) == ALL
    assert sizes(read_from_hub["coral-read-aloud conversation"]) == {"test": 3}
    assert not any(row["chain"] for row in read_from_hub["coral-read-aloud read_aloud"])


def test_fleurs(read_from_hub: dict[str, list[dict[str, Any]]]) -> None:
    for name, language in ("fleurs-fr fleurs_fr", "fr"), ("fleurs-any fleurs", "da"):
        rows = read_from_hub[name]
        assert sizes(rows) == ALL, "three people read one sentence, and each is a row"
        assert {(row["language"], row["speaker"], tuple(row["tags"])) for row in rows} == {
            (language, "", ("gender",))
        }
        assert all(row["text"].startswith("c'est le numéro") for row in rows)


def test_common_voice_from_a_copy_on_the_hub(
    read_from_hub: dict[str, list[dict[str, Any]]],
) -> None:
    rows = read_from_hub["common-voice-parquet cv_zh"]
    assert (
        sizes(rows) == ALL
        and {row["language"] for row in rows} == {"zh"}
        and rows[0]["text"].endswith("句")
    )


# From folders


def placed(name: str, home: Path) -> tuple[Path, Path]:
    """A copy of the experiment where its relative path leads into `home`, and the folder that it
    names."""
    copy = home / "a" / "b" / "c" / "d" / f"{name}.yaml"
    copy.parent.mkdir(parents=True)
    shutil.copy(LAB / copy.name, copy)
    return copy, home / "data" / FOLDER[name]


def corpus_in(name: str, home: Path) -> list[dict[str, Any]]:
    from asr_nb.runs.experiment import load_experiment

    return rows_of(load_experiment(home / "a" / "b" / "c" / "d" / f"{name}.yaml").corpus)


def test_common_voice_as_it_is_downloaded(tmp_path: Path) -> None:
    _, folder = placed("common-voice-local", tmp_path)
    (folder / "clips").mkdir(parents=True)
    heads = (
        "client_id",
        "path",
        "sentence_id",
        "sentence",
        "sentence_domain",
        "up_votes",
        "down_votes",
        "age",
        "gender",
        "accents",
        "variant",
        "locale",
        "segment",
    )
    number = 0
    for part, count in (("train", 6), ("dev", 2), ("test", 3), ("other", 2)):
        lines = ["\t".join(heads)]
        for _ in range(count):
            values = {
                "client_id": f"{part}{number % 2}",
                "path": f"common_voice_zh-CN_{number}.mp3",
                "locale": "zh-CN",
                "gender": "",
                "sentence": f'第"{number}句',
                "age": "thirties",
            }  # a quotation mark that is never closed
            lines.append("\t".join(values.get(head, "") for head in heads))
            (folder / "clips" / values["path"]).write_bytes(clip(number))
            number += 1
        (folder / f"{part}.tsv").write_text("\n".join(lines) + "\n", encoding="utf-8")
    rows = corpus_in("common-voice-local", tmp_path)
    assert sizes(rows) == ALL, "other.tsv is left alone"
    assert {(row["language"], row["tags"]["age"]) for row in rows} == {("zh", "thirties")}
    assert {row["speaker"][:4] for row in rows if row["split"] == "test"} == {
        "test"
    } and '"' in rows[0]["text"]


def test_korean_phone_speech(tmp_path: Path) -> None:
    _, folder = placed("korean-phone", tmp_path)
    for call in range(24):
        place = folder / f"D01/S{call:05}"
        place.mkdir(parents=True)
        for n in range(2):
            (place / f"{n:04}.wav").write_bytes(clip(2 * call + n, "WAV"))
            (place / f"{n:04}.txt").write_text(f"안녕하세요 {call} {n}\n", encoding="utf-8")
    rows = corpus_in("korean-phone", tmp_path)
    assert sizes(rows).keys() == ALL.keys() and len(rows) == 48
    assert rows[0]["text"].startswith("안녕하세요") and rows[0]["recording"].startswith("S0")
    places: dict[str, set[str]] = {}
    for row in rows:
        places.setdefault(row["recording"], set()).add(row["split"])
    assert all(len(splits) == 1 for splits in places.values()), "a call stands in one split"


def test_private_calls(tmp_path: Path) -> None:
    from asr_nb.runs.experiment import load_experiment

    copy, folder = placed("private-calls", tmp_path)
    lines = []
    for n in range(30):
        file = folder / f"call-{n // 2}" / f"{n}.wav"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(clip(n, "WAV"))
        lines.append(
            json.dumps(
                {
                    "file": file.relative_to(folder).as_posix(),
                    "text": f"hvad koster {n}",
                    "speaker": f"caller {n // 2}",
                    "call": str(n // 2),
                }
            )
        )
    (folder / "manifest.jsonl").write_text("\n".join(lines) + "\n")
    rows = corpus_in("private-calls", tmp_path)
    assert sizes(rows).keys() == ALL.keys() and len(rows) == 30
    assert {tuple(row["chain"]) for row in rows} == {("loudness",)} and rows[0]["id"].startswith(
        "call-"
    )
    assert load_experiment(copy).private


# What the plan says


def test_every_ready_experiment_says_where_its_data_comes_from() -> None:
    from asr_nb.runs.experiment import load_experiment
    from asr_nb.runs.plan import plan_runs, plan_text

    for name in (*HUB, *FOLDER):
        lab = load_experiment(name)
        assert (
            lab.name == name
            and lab.notes.startswith("Access: ")
            and ("Licence" in lab.notes or name in ("korean-phone", "private-calls"))
        )
        text = (LAB / f"{name}.yaml").read_text(encoding="utf-8")
        assert max(map(len, text.splitlines())) <= 140
    lab = load_experiment("fleurs-fr")
    assert "Licence: CC BY 4.0" in plan_text(lab, plan_runs(lab), LAB / "nowhere")


def test_a_folder_that_is_missing_is_one_clear_line(tmp_path: Path) -> None:
    from asr_nb.checks import BadInput
    from asr_nb.runs.experiment import load_experiment
    from asr_nb.runs.plan import plan_runs
    from conftest import command

    needed = (
        "can't be used; a file, or a folder with files, is needed; "
        "a relative path starts from where the YAML file lies"
    )
    for name in FOLDER:
        copy, folder = placed(name, tmp_path / name)
        lab = load_experiment(copy)
        value = "'(not shown)'" if lab.private else repr(str(folder))
        with pytest.raises(BadInput) as error:
            plan_runs(lab)
        assert str(error.value) == f"{lab.corpus.name}.options.path: {value} {needed}"
    answer = command("plan", copy, cwd=tmp_path)
    assert (answer.code, answer.out, answer.err) == (2, "", f"asr-nb: {error.value}\n")


if __name__ == "__main__":
    second_process()
