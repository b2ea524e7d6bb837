"""A corpus with every file that has gone wrong, good ones beside them: nothing is passed silently,
nothing stops the rest."""

import gc
import io
import json
import os
import signal
import struct
import subprocess
import sys
import tarfile
import tempfile
import time
import unicodedata
import wave
import zipfile
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import soundfile
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from asr_nb.checks import BadInput
from asr_nb.preprocessing.sources.archives import unpack
from asr_nb.preprocessing.sound.audio import (
    AUDIO_REASONS,
    AudioError,
    encode,
    from_pcm,
    load,
    to_pcm,
)
from asr_nb.preprocessing.sources.registry import open_rows
from asr_nb.preprocessing.corpus.utterances import REASONS, Ledger
from asr_nb.preprocessing.store.prepared import prepare_set
from helpers import prepared_rows

RATE = 16_000
GOOD = 80  # rows with nothing odd about them
SECRET = "rugbrødsmotor"  # stands in every transcript and folder: no detail may repeat it


def voice(seed: int, seconds: float = 0.6, rate: int = RATE) -> np.ndarray:
    """A few tones between 200 and 3,000 Hz that come and go: telephone and MP3 keep them."""
    draw = np.random.default_rng(seed)
    moment = np.arange(round(seconds * rate)) / rate
    tones = [
        np.sin(2 * np.pi * hertz * moment + phase)
        for hertz, phase in zip(draw.uniform(200, 3_000, 5), draw.uniform(0, 6, 5))
    ]
    return (0.12 * np.sum(tones, axis=0) * np.sin(np.pi * moment / seconds)).astype(np.float32)


def written(samples: np.ndarray, container: str = "WAV", rate: int = RATE, **options: str) -> bytes:
    buffer = io.BytesIO()
    soundfile.write(buffer, samples, rate, format=container, **options)
    return buffer.getvalue()


def changed(file: bytes, at: int, kind: str, value: int) -> bytes:
    new = struct.pack(kind, value)
    return file[:at] + new + file[at + len(new) :]


@dataclass
class Kind:
    """One row of the manifest."""

    name: str  # what is wrong or odd
    reason: str  # the one that it must get; "" = it is prepared
    data: bytes | None  # of its file; None = there is no file, or `make` makes it
    file: str = ""  # its name, "" = one of its own
    row: dict = field(default_factory=dict)  # more of the row
    sound: np.ndarray | None = None  # what must come out
    close: float = 40.0  # dB between it and the difference
    make: Callable[[Path], None] | None = None


def cut_files() -> Iterator[Kind]:
    containers = {
        kind: (kind, {})
        for kind in ("WAV", "FLAC", "MP3", "OGG", "AIFF", "AU", "CAF", "W64", "RF64")
    }
    containers |= {"OPUS": ("OGG", {"subtype": "OPUS"}), "GSM": ("WAV", {"subtype": "GSM610"})}
    for number, (kind, (container, options)) in enumerate(containers.items()):
        for place in (0.4, 0.7, 0.97):
            whole = written(voice(1_000 + number, 1.5), container, **options)
            yield Kind(f"{kind} cut at {place:.0%}", "truncated", whole[: int(place * len(whole))])


def headers() -> Iterator[Kind]:
    wav = written(voice(1))
    size = wav.index(b"data") + 4
    yield Kind("no bytes", "empty", b"")
    yield Kind("a header only", "empty", written(voice(1)[:0]))
    yield Kind("a FLAC header only", "truncated", written(voice(1), "FLAC")[:42])
    yield Kind("half a header", "undecodable", wav[:20])
    yield Kind("garbage", "undecodable", np.random.default_rng(0).bytes(5_000))
    yield Kind("a web page", "undecodable", b"<html>404 Not Found</html>" * 40)
    yield Kind("zeros", "undecodable", bytes(5_000))
    yield Kind("no channels", "undecodable", changed(wav, 22, "<H", 0))
    yield Kind("a rate of 0", "undecodable", changed(wav, 24, "<I", 0))
    yield Kind("a rate of 1 Hz", "undecodable", changed(wav, 24, "<I", 1))
    yield Kind("a rate of 2 GHz", "undecodable", changed(wav, 24, "<I", 2_000_000_000))
    yield Kind("FLAC of 74 hours", "undecodable", changed(written(voice(2), "FLAC"), 21, "B", 0xF1))
    yield Kind("declares less than it holds", "truncated", changed(wav, size, "<I", 6_000))
    yield Kind("declares more than it holds", "truncated", changed(wav, size, "<I", 60_000))


def contents() -> Iterator[Kind]:
    def floats(samples: np.ndarray) -> bytes:
        return written(samples, subtype="FLOAT")

    holed, burst = voice(3), voice(4)
    holed[99], burst[99] = np.nan, np.inf
    yield Kind("one NaN", "non_finite", floats(holed))
    yield Kind("all NaN", "non_finite", floats(np.full_like(holed, np.nan)))
    yield Kind("one infinity", "non_finite", floats(burst))
    yield Kind("floats that are integers", "off_scale", floats(32_768 * voice(5)))
    yield Kind("silence", "silent", written(np.zeros(9_600, np.float32)))
    yield Kind(
        "faint noise", "silent", written(1e-4 * np.random.default_rng(1).standard_normal(9_600))
    )
    yield Kind("an offset only", "silent", written(np.full(9_600, 0.3, np.float32)))
    yield Kind("full scale, and nothing else", "silent", written(np.ones(9_600, np.float32)))
    yield Kind("one sample", "silent", written(np.array([0.5], np.float32)))
    yield Kind("over thirty seconds", "too_long", written(voice(6, 30.5)))
    yield Kind("an empty text", "text_empty", written(voice(7)), row={"text": ""})
    yield Kind("a text of blanks", "text_empty", written(voice(8)), row={"text": " \t\u00a0\n"})
    yield Kind("no text at all", "text_empty", written(voice(9)), row={"text": None})
    yield Kind(
        "another rate than stated",
        "misdeclared",
        written(voice(10), rate=8_000),
        row={"sampling_rate": 16_000},
    )
    yield Kind(
        "half the speed", "misdeclared", written(voice(11), rate=8_000), row={"duration": 0.6}
    )
    yield Kind("shorter than stated", "misdeclared", written(voice(12)), row={"duration": 1.5})


def paths() -> Iterator[Kind]:
    def outside(folder: Path) -> None:
        (folder.parent / "outside.wav").write_bytes(written(voice(20)))

    here = written(voice(21))
    yield Kind("no such file", "audio_missing", None)
    yield Kind(
        "a folder",
        "audio_missing",
        None,
        "folder.wav",
        make=lambda folder: (folder / "folder.wav").mkdir(),
    )
    yield Kind(
        "a dangling link",
        "audio_missing",
        None,
        "dangling.wav",
        make=lambda folder: (folder / "dangling.wav").symlink_to("gone.wav"),
    )
    yield Kind(
        "a link to itself",
        "audio_missing",
        None,
        "loop.wav",
        make=lambda folder: (folder / "loop.wav").symlink_to("loop.wav"),
    )
    yield Kind(
        "a named pipe",
        "audio_missing",
        None,
        "pipe.wav",
        make=lambda folder: os.mkfifo(folder / "pipe.wav"),
    )
    yield Kind(
        "an endless device",
        "audio_missing",
        None,
        "zero.wav",
        make=lambda folder: (folder / "zero.wav").symlink_to("/dev/zero"),
    )
    yield Kind("a name of 300 bytes", "audio_missing", None, "a" * 300 + ".wav")
    yield Kind("a name with NUL", "row_unreadable", None, "a\0.wav")
    yield Kind("a name with half a character", "row_unreadable", None, "a\ud800.wav")
    yield Kind("out of the folder", "row_unreadable", None, "../outside.wav", make=outside)
    yield Kind("in and out of it", "row_unreadable", None, "a/../../outside.wav")
    yield Kind("an absolute path", "row_unreadable", None, "ABSOLUTE/../outside.wav")
    yield Kind("no name of a file", "row_unreadable", here, row={"file": None})
    yield Kind("a list for a name", "row_unreadable", here, row={"file": ["x"]})
    yield Kind("an object for a text", "row_unreadable", here, row={"text": {"da": "x"}})
    yield Kind("a split of nowhere", "row_unreadable", here, row={"split": "tset"})
    yield Kind("no split", "row_unreadable", here, row={"split": None})
    yield Kind("a duration of soon", "row_unreadable", here, row={"duration": "soon"})
    if os.geteuid():
        yield Kind(
            "no permission",
            "audio_missing",
            here,
            "locked.wav",
            make=lambda folder: (folder / "locked.wav").chmod(0),
        )


def twice() -> Iterator[Kind]:
    one = from_pcm(to_pcm(voice(30)))
    yield Kind("the first of its kind", "", encode(one, container="WAV"), "first.wav", sound=one)
    yield Kind("its id again", "duplicate_id", None, "first.wav")
    yield Kind("its bytes again", "duplicate_audio", encode(one, container="WAV"))
    yield Kind("its samples again, as FLAC", "duplicate_audio", encode(one))
    yield Kind("its samples in training", "leaked", encode(one), row={"split": "train"})


def odd() -> Iterator[Kind]:
    """Odd, and as good as any."""

    def wide(samples: np.ndarray) -> bytes:  # 24 bits in 32, as some recorders have it
        buffer = io.BytesIO()
        with wave.open(buffer, "wb") as file:
            file.setnchannels(1), file.setsampwidth(4), file.setframerate(RATE)
            file.writeframes((np.rint(samples * 2**23).astype("<i4") << 8).tobytes())
        return buffer.getvalue()

    formats = {
        "8 bit": ("PCM_U8", 25),
        "24 bit": ("PCM_24", 60),
        "floats": ("FLOAT", 60),
        "doubles": ("DOUBLE", 60),
        "A-law": ("ALAW", 25),
        "mu-law": ("ULAW", 25),
        "IMA ADPCM": ("IMA_ADPCM", 20),
        "GSM": ("GSM610", 3),
    }
    for number, (name, (subtype, close)) in enumerate(formats.items(), 40):
        yield Kind(
            name, "", written(voice(number), subtype=subtype), sound=voice(number), close=close
        )
    yield Kind("32 bit", "", wide(voice(50)), sound=voice(50), close=60)
    for number, rate in enumerate((8_000, 44_100, 48_000, 192_000), 51):
        whole = written(voice(number, rate=rate), rate=rate)
        yield Kind(
            f"{rate} Hz",
            "",
            whole,
            sound=voice(number),
            row={"sampling_rate": rate, "duration": "0.60"},
        )
    yield Kind(
        "six channels", "", written(np.tile(voice(55)[:, None], 6)), sound=voice(55), close=60
    )
    yield Kind(
        "one channel of two",
        "",
        written(np.stack([voice(56), 0 * voice(56)], 1)),
        sound=voice(56) / 2,
    )
    yield Kind("big-endian", "", written(voice(57), endian="BIG"), sound=voice(57), close=60)
    yield Kind("MP3 named .wav", "", written(voice(58), "MP3"), sound=voice(58), close=10)
    yield Kind("WAV named .mp3", "", written(voice(59)), "named.mp3", sound=voice(59), close=60)
    yield Kind("no ending", "", written(voice(60), "OGG"), "named", sound=voice(60), close=10)
    piped = written(voice(61))
    at = piped.index(b"data") + 4
    yield Kind(
        "WAV from a pipe", "", changed(piped, at, "<I", 0xFFFFFFFF), sound=voice(61), close=60
    )
    yield Kind("clipped throughout", "", written(np.sign(voice(62))), sound=np.sign(voice(62)))
    names = {
        "accents": "å ø é.wav",
        "accents, decomposed": unicodedata.normalize("NFD", "å ø é.wav"),
        "an emoji": "🎙️.wav",
        "Korean": "통화.wav",
        "right to left": "\u202eشريط.wav",
        "a new line": "a\nb.wav",
        "a line separator": "a\u2028b.wav",
        "quotes": '"it\'s" `here`.wav',
        "a backslash": "a\\b.wav",
        "255 bytes": "ø" * 125 + "1.wav",
        "blanks": " .wav",
        "a query": "a?b=%2F#c.wav",
        "an option": "-rf.wav",
    }
    for number, (name, file) in enumerate(names.items(), 70):
        yield Kind(
            f"a name with {name}", "", written(voice(number)), file, sound=voice(number), close=60
        )
    yield Kind(
        "a long path", "", written(voice(90)), "/".join(["d" * 200] * 9) + "/a.wav", sound=voice(90)
    )
    yield Kind("a detour within", "", written(voice(91)), "d/../detour.wav", sound=voice(91))
    yield Kind(
        "an absolute path within", "", written(voice(92)), "ABSOLUTE/absolute.wav", sound=voice(92)
    )
    yield Kind("a link that leads out", "", None, "linked.wav", sound=voice(93), make=linked)
    yield Kind(
        "a very long text",
        "",
        written(voice(94)),
        row={"text": f"{SECRET} " * 5_000},
        sound=voice(94),
    )


def linked(folder: Path) -> None:
    """The owner of a disk made it, as the cache of the Hub does: it is followed."""
    (folder.parent / "elsewhere.wav").write_bytes(written(voice(93)))
    (folder / "linked.wav").symlink_to("../elsewhere.wav")


LINES = {  # that are no rows
    "half a line": '{"file": "half.wav", "text": "' + SECRET,
    "a list": f'["{SECRET}"]',
    "a number": "7",
    "no JSON": f"{SECRET}, file, text",
    "too deep": '{"file":' + "[" * 100_000,
    "a vast number": '{"text": ' + "9" * 5_000 + "}",
}


@dataclass
class Zoo:
    """Where it lies, what is in it."""

    folder: Path
    kinds: dict[str, Kind]  # id -> kind
    bad: dict[str, str]  # id -> reason
    rows: int

    def options(self, **changed: object) -> dict:
        named = {"audio": "file", "text": "text"}
        return {
            "path": str(self.folder),
            "columns": named,
            "leaks": "drop",
            "max_quarantine": 0.9,
            **changed,
        }


@pytest.fixture(scope="module")
def zoo(tmp_path_factory: pytest.TempPathFactory) -> Zoo:
    folder = tmp_path_factory.mktemp("zoo") / SECRET
    folder.mkdir()
    kinds = [*headers(), *cut_files(), *contents(), *paths(), *twice(), *odd()]
    lines: list[str | bytes] = []
    found = Zoo(folder, {}, {}, 0)
    for number, kind in enumerate(kinds):
        name = (kind.file or f"{SECRET}-{number}.wav").replace("ABSOLUTE", str(folder))
        if kind.data is not None:
            path = Path(os.path.normpath(folder / name))
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(kind.data)
        if kind.make:
            kind.make(folder)
        lines.append(
            json.dumps({"file": name, "text": f"det siger {SECRET}", "split": "test", **kind.row})
        )
        id = os.path.relpath(folder / name, folder) if "/" in name else name
        id = f"manifest.jsonl:{len(lines)}" if kind.reason == "row_unreadable" else id
        found.kinds.setdefault(id, kind)
        if kind.reason and kind.reason != "duplicate_id":
            found.bad[id] = kind.reason
    for line in LINES.values():
        lines.append(line)
        found.bad[f"manifest.jsonl:{len(lines)}"] = "row_unreadable"
    lines.append(b'{"file": "latin.wav", "split": "test", "text": "r\xf8d"}')
    found.bad[f"manifest.jsonl:{len(lines)}"] = "row_unreadable"
    for number in range(GOOD):
        (folder / f"good-{number}.flac").write_bytes(written(voice(100 + number), "FLAC"))
        split = ("train", "train", "dev", "test")[number % 4]
        lines.append(
            json.dumps({"file": f"good-{number}.flac", "text": "en to tre", "split": split})
        )
    data = b"".join((line if isinstance(line, bytes) else line.encode()) + b"\n" for line in lines)
    (folder / "manifest.jsonl").write_bytes(data)
    found.rows = len(lines)
    return found


def check_ledger(zoo: Zoo, ledger: Ledger, more: dict[str, str]) -> None:
    """Each bad row once, with its reason; no detail says what was spoken, or what a file is
    called."""
    expected = Counter((zoo.bad | more).items())
    expected[("first.wav", "duplicate_id")] += 1
    assert Counter((row["id"], row["reason"]) for row in ledger.rows) == expected
    for row in ledger.rows:
        detail = row["detail"].removesuffix(
            " of first.wav"
        )  # which row it repeats is said by its id
        assert len(detail) < 120 and not [
            word for word in (SECRET, ".wav", ".flac", "det siger", "\n", "/tmp") if word in detail
        ], row


def check_sound(kind: Kind, samples: np.ndarray) -> None:
    """What came out is what went in, as far as its format carries it."""
    padded = np.pad(samples, (0, max(0, len(kind.sound) - len(samples))))[: len(kind.sound)]
    assert abs(len(samples) - len(kind.sound)) <= (
        1_300 if kind.name == "GSM" else 1_200 if "ADPCM" in kind.name else 1
    ), kind.name
    error, power = np.mean((padded - kind.sound) ** 2), np.mean(kind.sound**2)
    assert 10 * np.log10(power / max(error, 1e-12)) > kind.close, (
        kind.name,
        10 * np.log10(power / error),
    )


def test_there_are_enough_kinds_and_every_reason_of_a_file_has_one(zoo: Zoo) -> None:
    assert len(zoo.bad) > 60 and sum(not kind.reason for kind in zoo.kinds.values()) >= 40
    assert set(AUDIO_REASONS) <= set(REASONS) and set(AUDIO_REASONS) <= set(zoo.bad.values())


def test_every_bad_row_is_in_the_ledger_with_its_reason_and_the_rest_is_prepared(zoo: Zoo) -> None:
    ledger = Ledger()
    pairs = prepared_rows("folder", "zoo", "da", zoo.options(), ledger)
    sounds = {row.id: samples for row, samples in pairs}
    check_ledger(zoo, ledger, {})
    good = {id for id, kind in zoo.kinds.items() if not kind.reason}
    assert set(sounds) == good | {f"good-{number}.flac" for number in range(GOOD)}
    assert len(sounds) + len(ledger.rows) == zoo.rows
    for id in good:
        check_sound(zoo.kinds[id], sounds[id])
    assert all(np.isfinite(samples).all() and len(samples) for samples in sounds.values())


def test_the_limit_on_what_is_left_out_holds(zoo: Zoo) -> None:
    ledger = Ledger()
    with pytest.raises(
        BadInput, match="max_quarantine: .* of 211 utterances .* a share of 0.01 may be"
    ) as error:
        prepared_rows("folder", "zoo", "da", zoo.options(max_quarantine=0.01), ledger)
    assert SECRET not in str(error.value) and "\n" not in str(error.value)
    with pytest.raises(BadInput, match="test and train overlap|train and test overlap"):
        prepared_rows("folder", "zoo", "da", zoo.options(leaks="refuse"), Ledger())


def test_in_several_processes_it_is_the_same(zoo: Zoo, tmp_path: Path) -> None:
    ledger = Ledger()
    opened = open_rows("folder", "zoo", "da", zoo.options(), ledger)
    made, _ = prepare_set(opened, [Short()], tmp_path / "zoo", ledger, workers=2)
    ids = {kind.name: id for id, kind in zoo.kinds.items()}
    check_ledger(zoo, ledger, {ids["a very long text"]: "label_too_long"})
    assert len(made.utterances) + len(ledger.rows) == zoo.rows
    for row in made.utterances:
        if kind := zoo.kinds.get(row.id):
            check_sound(kind, made.samples(row.id))
    before = {row["id"]: row["before"] for row in made.measures()}
    assert set(before) == {row.id for row in made.utterances}
    assert (
        before[ids["clipped throughout"]]["clipped"] > 0.9 > 0.1 > before["good-1.flac"]["clipped"]
    )


class Short:
    """What prepare asks of a model, which here reads samples and writes at most 1,000
    characters."""

    name, source, fingerprint, window_seconds, reader = (
        "short",
        "short",
        "short",
        30.0,
        SimpleNamespace(dtype="", fingerprint="short"),
    )

    def fits(self, text: str, language: str, seconds: float) -> None:
        if len(text) > 1_000:
            raise BadInput("text", len(text), "at most 1000 characters")


def short(number: int) -> str:
    row = {"file": f"{number % 4}.wav", "id": f"r{number}", "text": f"en to tre {number}"}
    return json.dumps({**row, "split": "train"}) + "\n"


def manifest(folder: Path, lines: int, bad: dict[int, str]) -> dict:
    """A manifest of `lines` short lines that point at four files, some of them replaced."""
    for number in range(4):
        (folder / f"{number}.wav").write_bytes(written(voice(number)))
    with open(folder / "manifest.jsonl", "w", encoding="utf-8") as file:
        file.writelines(bad.get(number, "") or short(number) for number in range(1, lines + 1))
    return {
        "path": str(folder),
        "columns": {"audio": "file"},
        "dev_share": 0,
        "test_share": 0,
        "leaks": "drop",
    }


def test_a_million_lines_with_one_bad(tmp_path: Path) -> None:
    options, ledger = (
        manifest(tmp_path, 1_000_000, {765_432: '{"file": "0.wav", "text": "en\n'}),
        Ledger(),
    )
    began = time.process_time()
    gc.disable()  # it looks for cycles in a million rows again and again, nearly half of the time
    try:
        ids = sum(
            int(row.id[1:]) for row in open_rows("folder", "calls", "da", options, ledger).rows
        )
    finally:
        gc.enable()
    assert ids == 500_000_500_000 - 765_432
    assert [(row["id"], row["reason"]) for row in ledger.rows] == [
        ("manifest.jsonl:765432", "row_unreadable")
    ]
    assert time.process_time() - began < 60  # 13 s when this was written


def test_two_thousand_files_of_which_two_are_bad(tmp_path: Path) -> None:
    noise = np.random.default_rng(0).integers(-9_000, 9_000, (2_000, 1_600)).astype(np.int16)
    for number, samples in enumerate(noise):
        (tmp_path / f"{number}.wav").write_bytes(encode(from_pcm(samples), container="WAV"))
    os.truncate(tmp_path / "77.wav", 1_000)
    lines = [
        json.dumps({"audio": f"{number}.wav", "text": "en", "split": "train"})
        for number in range(2_000)
    ]
    lines[1_234] = lines[1_234][:-9]
    (tmp_path / "manifest.jsonl").write_text("\n".join(lines))
    ledger = Ledger()  # at most 1 % may be left out, and that is not reached
    options = {"path": str(tmp_path), "test_share": 0}
    pairs = prepared_rows("folder", "noise", "da", options, ledger)
    assert [len(samples) for _, samples in pairs] == [1_600] * 1_998 and [
        (row["id"], row["reason"]) for row in ledger.rows
    ] == [
        ("manifest.jsonl:1235", "row_unreadable"),
        ("77.wav", "truncated"),
    ]


def small(kind: str) -> bytes:
    container, subtype = {
        "OPUS": ("OGG", "OPUS"),
        "floats": ("WAV", "FLOAT"),
        "GSM": ("WAV", "GSM610"),
    }.get(kind, (kind, None))
    return written(voice(7, 0.3), container, subtype=subtype)


BYTES = {
    kind: small(kind)
    for kind in (
        "WAV",
        "floats",
        "GSM",
        "FLAC",
        "OGG",
        "OPUS",
        "MP3",
        "AIFF",
        "AU",
        "CAF",
        "W64",
        "RF64",
    )
}
Flip = st.tuples(
    st.integers(0, 10**6), st.integers(1, 255), st.booleans()
)  # where, which bits, near the start


@settings(max_examples=400, deadline=5_000, database=None, suppress_health_check=list(HealthCheck))
@given(st.sampled_from(sorted(BYTES)), st.lists(Flip, max_size=4), st.floats(0, 1), st.booleans())
def test_damaged_bytes_are_samples_or_an_error_with_a_reason(
    kind: str, flips: list, place: float, cut: bool
) -> None:
    data = bytearray(BYTES[kind])
    for at, bits, early in flips:
        data[at % (100 if early else len(data))] ^= bits
    try:
        samples = load(bytes(data[: int(place * len(data))] if cut else data))
    except AudioError as error:
        assert error.reason in AUDIO_REASONS and "\n" not in str(error)
    else:
        assert (
            len(samples)
            and samples.ndim == 1
            and samples.dtype == np.float32
            and np.isfinite(samples).all()
        )
        assert len(to_pcm(samples)) == len(samples)


@settings(max_examples=200, deadline=5_000, database=None)
@given(st.sampled_from(sorted(set(BYTES) - {"MP3"})), st.floats(0, 0.999))
def test_no_cut_passes(kind: str, place: float) -> None:
    with pytest.raises(AudioError):
        load(BYTES[kind][: int(place * len(BYTES[kind]))])


def packed(members: dict[str, bytes], kind: str = "tar.gz") -> bytes:
    buffer = io.BytesIO()
    if kind == "zip":
        with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
            for name, content in members.items():
                archive.writestr(name, content)
    else:
        with tarfile.open(fileobj=buffer, mode={"tar": "w", "tar.gz": "w:gz"}[kind]) as archive:
            for name, content in members.items():
                info = tarfile.TarInfo(name)
                info.size = len(content)
                archive.addfile(info, io.BytesIO(content))
    return buffer.getvalue()


@pytest.mark.parametrize("kind", ["zip", "tar", "tar.gz"])
def test_a_corpus_in_an_archive(kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ASR_NB_CACHE", str(tmp_path / "cache"))
    rows = [
        {"audio": f"clips/{number}.wav", "text": SECRET, "split": "train"} for number in range(4)
    ]
    members = {f"calls/clips/{number}.wav": written(voice(number)) for number in range(4)}
    members["calls/manifest.jsonl"] = "\n".join(map(json.dumps, rows)).encode()
    (tmp_path / "calls").write_bytes(packed(members, kind))
    options = {"path": str(tmp_path / "calls"), "test_share": 0}
    assert len(prepared_rows("folder", "calls", "da", options, Ledger())) == 4
    (tmp_path / "calls").write_bytes(
        packed({**members, f"../{SECRET}.wav": written(voice(9))}, kind)
    )
    with pytest.raises(BadInput, match=r"member 6: a path with \.\.") as error:
        prepared_rows("folder", "calls", "da", options, Ledger())
    assert SECRET not in str(error.value) and "\n" not in str(error.value)
    assert not [path for path in tmp_path.rglob("*") if SECRET in path.name]


ARCHIVES = {
    kind: packed({"a/1.wav": written(voice(1, 0.05)), "a/b/2": b"x" * 99}, kind)
    for kind in ("zip", "tar", "tar.gz")
}


@settings(max_examples=150, deadline=5_000, database=None, suppress_health_check=list(HealthCheck))
@given(
    st.sampled_from(sorted(ARCHIVES)), st.lists(Flip, max_size=4), st.floats(0, 1), st.booleans()
)
def test_damaged_archives_are_unpacked_inside_or_refused(
    kind: str, flips: list, place: float, cut: bool
) -> None:
    data = bytearray(ARCHIVES[kind])
    for at, bits, early in flips:
        data[at % (100 if early else len(data))] ^= bits
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "archive").write_bytes(data[: int(place * len(data))] if cut else data)
        try:
            found = unpack(folder / "archive", folder / "into")
            assert found.is_relative_to(folder / "into") and found.is_dir()
        except BadInput as error:
            assert "\n" not in str(error) and not list((folder / "into").iterdir())
        assert {path.name for path in folder.iterdir()} == {"archive", "into"}
        assert all(
            path.is_dir() or path.is_file() and not path.is_symlink() for path in folder.rglob("*")
        )


def test_an_unpacking_that_is_killed_leaves_nothing_that_is_taken_for_whole(tmp_path: Path) -> None:
    members = {f"{number}.wav": b"x" * 2_000 for number in range(4_000)}
    (tmp_path / "archive").write_bytes(packed(members, "tar"))
    code = (
        "import sys; from pathlib import Path; from asr_nb.preprocessing.sources.archives import "
        "unpack; unpack(*map(Path, sys.argv[1:]))"
    )
    into = tmp_path / "into"
    child = subprocess.Popen([sys.executable, "-c", code, str(tmp_path / "archive"), str(into)])
    while child.poll() is None and sum(1 for _ in into.glob(".*.part/*")) < 50:
        time.sleep(0.002)
    child.kill()
    assert child.wait() == -signal.SIGKILL
    (part,) = into.iterdir()
    assert part.name.endswith(".part") and 0 < len(list(part.iterdir())) < 4_000
    whole = unpack(tmp_path / "archive", into)
    assert [path for path in into.iterdir()] == [whole] and len(list(whole.iterdir())) == 4_000
