"""The whole way with families that are not Whisper: a tiny wav2vec2 CTC is trained, pocketsphinx listens as a witness."""

from pathlib import Path

from conftest import command, result, run_folders

EXPERIMENT = """
name: ctc
question: Does a family that is not Whisper go the whole way?
corpus: {name: en_clean, source: synthetic, language: en, options: {train: 12, dev: 2, test: 4, seed: 1}}
tests: [{name: nonspeech, role: nonspeech, source: nonspeech, language: en, options: {each: 1, seconds: [1.0, 1.0]}}]
models: [{name: tiny-ctc, family: ctc, source: ./tiny}]
recipes: [{name: short, base: full, steps: 4, evaluations: 1, batch_size: 4, micro_batch: 2}]
witnesses: [pocketsphinx]
"""


def test_ctc_is_trained_and_pocketsphinx_is_its_witness(tmp_path: Path) -> None:
    from asr_nb.models.ctc import untrained

    untrained(["abcdefghijklmnopqrstuvwxyz'"], seed=0).save(tmp_path / "tiny")
    (tmp_path / "ctc.yaml").write_text(EXPERIMENT)
    said = command("run", "ctc.yaml", "--out", "runs", cwd=tmp_path)
    assert said.code == 0, said.err
    folders = run_folders(tmp_path / "runs" / "ctc")
    assert result(folders["train-tiny-ctc-short"])["metrics"]["train.steps"]["value"] == 4
    assert (folders["audit"] / "witness-pocketsphinx.jsonl").read_text().count(
        '"test_set":"en_clean"'
    ) == 4
    assert "en_clean.tiny-ctc.short.unsupported_spans" in result(folders["audit"])["metrics"]


def test_a_recogniser_that_only_listens(tmp_path: Path) -> None:
    (tmp_path / "ears.yaml").write_text("""
name: ears
question: What does a recogniser hear that can't be trained?
corpus: {name: en_clean, source: synthetic, language: en, options: {test: 4, seed: 1}}
tests: [{name: nonspeech, role: nonspeech, source: nonspeech, language: en, options: {each: 1, seconds: [1.0, 1.0]}}]
models: [pocketsphinx]
""")
    said = command("run", "ears.yaml", "--out", "runs", cwd=tmp_path)
    assert said.code == 0, said.err
    metrics = result(run_folders(tmp_path / "runs" / "ears")["baseline-pocketsphinx"])["metrics"]
    assert metrics["en_clean.wer"]["n"] == 4
