"""Each command in the README is executed: on the toy, on a folder of recordings, and the demo."""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from conftest import ROOT, result, run_folders

README = (ROOT / "README.md").read_text("utf-8")
COMMANDS = [
    line
    for block in re.findall(r"```sh\n(.*?)```", README, re.S)
    for line in block.splitlines()
    if line.strip()
]
NOT_HERE = {"make test", "make quick", "make lab"}  # this very test runs in the first two


def shell(line: str, cwd: Path, **more: str) -> subprocess.CompletedProcess:
    environment = {
        **os.environ,
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        "HF_HUB_OFFLINE": "1",
        **more,
    }
    return subprocess.run(
        line, shell=True, cwd=cwd, env=environment, capture_output=True, text=True, timeout=900
    )


def test_every_command_is_known_here() -> None:
    assert set(COMMANDS) - NOT_HERE == {
        "make demo",
        "asr-nb score reference.trn small.trn large.trn --language en --html report.html",
        "asr-nb check",
        "asr-nb plan demo",
        "asr-nb run toy --out my_runs",
        "asr-nb status my_runs",
        "asr-nb labbook my_runs",
        "asr-nb plan my_calls.yaml",
        "asr-nb run my_calls.yaml",
    }


def test_the_commands_on_the_toy(toy: Path, tmp_path: Path) -> None:
    """On a toy that was run before, in the same way: the run itself finds everything done."""
    shutil.copytree(toy, tmp_path / "my_runs" / "toy")
    for name, text in (("reference", "one two"), ("small", "one"), ("large", "one too")):
        (tmp_path / f"{name}.trn").write_text(f"{text} (a)\n{text} (b)\n")
    for line in (c for c in COMMANDS if c.startswith("asr-nb") and "my_calls" not in c):
        done = shell(line, tmp_path)
        assert done.returncode == 0, f"{line}: {done.stdout}{done.stderr}"
    assert (tmp_path / "my_runs" / "labbook.html").exists() and (tmp_path / "report.html").exists()


def test_ones_own_recordings(tmp_path: Path) -> None:
    from asr_nb.preprocessing.sources import synthetic

    described = yaml.safe_load(re.search(r"```yaml\n(.*?)```", README, re.S)[1])
    described["recipes"] = [
        {"name": "full", "steps": 3, "evaluations": 1}
    ]  # the README's would take minutes
    (tmp_path / "my_calls.yaml").write_text(yaml.safe_dump(described))
    rows = synthetic.utterances("da", {"channel": "phone", "train": 40, "seed": 5})
    (tmp_path / "recordings").mkdir()
    lines = []
    for row in rows:
        (tmp_path / "recordings" / f"{row.id}.flac").write_bytes(row.audio)
        lines.append(
            json.dumps({"file": f"{row.id}.flac", "text": row.text, "speaker": row.speaker})
        )
    (tmp_path / "recordings" / "manifest.jsonl").write_text("\n".join(lines))
    for line in (c for c in COMMANDS if "my_calls" in c):
        forced = (
            " --force" if line.startswith("asr-nb run") else ""
        )  # the micro model is good at these already
        done = shell(line + forced, tmp_path)
        assert done.returncode == 0, f"{line}: {done.stdout}{done.stderr}"
    folders = run_folders(tmp_path / "papermill_runs" / "my_calls")
    assert result(folders["evaluate-micro-full"])["metrics"]["calls.wer"]["value"] is not None


@pytest.mark.slow
def test_the_demo(tmp_path: Path) -> None:
    """Fine-tuning halves the WER or better, claims have intervals, what was forgotten is said."""
    assert "make demo" in COMMANDS
    done = shell(f"make demo OUT={tmp_path / 'demo'}", ROOT, MAKEFLAGS="")
    assert done.returncode == 0, done.stdout + done.stderr
    folders = run_folders(tmp_path / "demo" / "demo")
    before, full = (
        result(folders[name])["metrics"] for name in ("baseline-micro", "evaluate-micro-full")
    )
    assert full["da_phone.wer"]["value"] <= 0.5 * before["da_phone.wer"]["value"]
    assert full["da_phone.wer_change"]["high"] < 0
    assert full["en_clean.wer_change"]["low"] > 0, "what was forgotten shows"
    assert full["nonspeech.words_per_minute"]["value"] is not None
    doomed = result(folders["train-micro-lora-endless-warmup"])
    assert doomed["verdict"].startswith("FAILED: the warm-up never ended") and doomed["warnings"]
    audit = result(folders["audit"])["metrics"]
    assert audit["da_phone.micro.full.unsupported_spans"]["n"] == full["da_phone.wer"]["n"]
    for word in ("da_phone", "worse", "unsupported", "FAILED", "labbook.html"):
        assert word in done.stdout, f"{word} is missing in the table:\n{done.stdout}"
