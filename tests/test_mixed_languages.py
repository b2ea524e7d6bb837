"""Sets in Mandarin, Arabic, German and English beside an Italian corpus, and one that mixes them:
each row is scored by the rules of its own language, from the plan to the lab book."""

import json
import re
import subprocess
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest
import soundfile
from asr_nb.evaluation.decoding import Prediction, read_predictions, write_predictions
from asr_nb.checks import BadInput
from asr_nb.evaluation.summary import scores_of, summarise
from asr_nb.preprocessing.text.normalisers import ScoringRules, for_any_language
from asr_nb.reports.labbook import experiments_in, labbook_html, summary_html
from asr_nb.runs import comparison
from asr_nb.runs.experiment import load_experiment, scoring_notes, write_experiment
from asr_nb.runs.record import read_result
from browser import CHROMIUM
from conftest import command, result, run_folders

SAID = {  # in each language two sentences
    "it": ("Ci vediamo domani alle nove.", "Il treno parte da Milano."),
    "zh": ("我们明天在车站见。", "今天天气很好。"),
    "ar": ("نلتقي غدًا في المحطة.", "الجوّ جميل اليوم."),
    "de": ("Wir sehen uns morgen am Bahnhof.", "Der Zug hat 20 Minuten Verspätung."),
    "en": ("We'll meet at the station tomorrow.", "The train is late."),
    "fi": ("Tavataan huomenna asemalla.", "Juna on myöhässä."),
}
SETS = {"radio": "it", "mandarin": "zh", "news": "ar", "calls": "de", "read": "en"}
RATES = {"radio": "wer", "mandarin": "cer", "news": "wer", "calls": "wer", "read": "wer"}


def experiment(normaliser: str = "auto", **own: str) -> str:
    """The YAML of the experiment; `own`: the normalisers that sets name themselves."""
    lines = [f"name: six\nquestion: What does Italian cost?\nnormaliser: {normaliser}\ntests:"]
    for name, language in {**SETS, "meetings": ""}.items():
        spec = f"name: {name}, source: folder, language: '{language}', options: {{path: {name}}}"
        spec += f", normaliser: {own[name]}" if name in own else ""
        if name == "radio":
            lines.insert(0, f"corpus: {{{spec}}}")
        else:
            lines.append(f"  - {{{spec}, role: source}}")
    lines.append("  - {name: quiet, source: nonspeech, role: nonspeech, language: it,")
    lines.append("     options: {each: 1, seconds: [1.0, 1.0]}}")
    lines.append("models: [{name: tiny, family: ctc, source: ./tiny}]")
    short = "base: full, steps: 2, evaluations: 1, batch_size: 4, micro_batch: 2"
    lines.append(f"recipes: [{{name: short, {short}}}]")
    return "\n".join(lines) + "\n"


def write_set(folder: Path, languages: tuple[str, ...], train: bool) -> None:
    """Six speakers of each language, who hum; the corpus has rows to train on besides."""
    folder.mkdir()
    rows, splits = [], ("test", "train", "dev") if train else ("test",)
    for code in languages:
        for n in range(6 * len(splits)):
            name = f"{code}{n}.wav"
            hum = np.random.default_rng([*f"{folder.name}/{name}".encode()]).normal(size=24_000)
            soundfile.write(folder / name, 0.05 * hum, 16_000)
            row = {"file_name": name, "text": SAID[code][n % 2], "language": code}
            row |= {"speaker": f"{code} {n}", "split": splits[n // 6]}
            rows.append(json.dumps(row, ensure_ascii=False))
    (folder / "metadata.jsonl").write_text("\n".join(rows) + "\n", "utf-8")


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder in which the whole experiment was run."""
    from asr_nb.models.ctc import untrained

    folder = tmp_path_factory.mktemp("mixed")
    for name, language in SETS.items():
        write_set(folder / name, (language,), name == "radio")
    write_set(folder / "meetings", ("zh", "de", "fi"), False)
    letters = {c for texts in SAID.values() for text in texts for c in text.lower() if c != " "}
    untrained(["".join(sorted(letters))], seed=0).save(folder / "tiny")
    (folder / "six.yaml").write_text(experiment(), "utf-8")
    answer = command("run", "six.yaml", "--out", "runs", cwd=folder)
    assert answer.code == 0, answer.err + answer.out
    return folder


@pytest.fixture(scope="module")
def runs(place: Path) -> Mapping[str, Path]:
    """The folders of its runs, by name without the key."""
    return run_folders(place / "runs" / "six")


def page(notebook: Path) -> str:
    """All that an executed notebook shows, as text."""
    cells = json.loads(notebook.read_text("utf-8"))["cells"]
    shown = [out.get("data", {}) for cell in cells for out in cell.get("outputs", [])]
    texts = [data.get("text/markdown") or data.get("text/html") or "" for data in shown]
    return "\n".join("".join(text) for text in texts)


def by_set(folder: Path) -> dict[str, list[Prediction]]:
    """The predictions of a run by set, those of clips without speech left out."""
    sets: dict[str, list[Prediction]] = {}
    for row in read_predictions(folder / "predictions.jsonl"):
        if row.reference:
            sets.setdefault(row.test_set, []).append(row)
    return sets


@pytest.mark.parametrize("name", ["baseline-tiny", "evaluate-tiny-short"])
def test_each_rate_is_what_the_languages_own_normaliser_gives_alone(
    runs: Mapping[str, Path], name: str
) -> None:
    record, sets = result(runs[name]), by_set(runs[name])
    assert record["inputs"]["rate"] == RATES | {"meetings": "mer"}
    for test_set, language in SETS.items():
        rule, rate = for_any_language(language), RATES[test_set]
        alone = summarise(sets[test_set], "target", rule)[rate]
        metric = record["metrics"][f"{test_set}.{rate}"]
        assert [metric[key] for key in ("value", "low", "high")] == [
            *(alone.value, alone.low, alone.high)
        ]
        entry = record["inputs"]["normaliser"]["used"][test_set][language]
        assert (entry["name"], entry["fingerprint"]) == (rule.name, rule.fingerprint)
    errors = said = 0
    for language, rate in (("zh", "cer"), ("de", "wer"), ("fi", "wer")):
        rows = [row for row in sets["meetings"] if row.language == language]
        counts = scores_of(rows, for_any_language(language)).primary
        assert record["metrics"][f"meetings.{rate}_{language}"]["value"] == counts.rate
        errors, said = errors + counts.errors.sum(), said + counts.reference.sum()
    assert record["metrics"]["meetings.mer"]["value"] == errors / said
    assert any("no normaliser for `fi`: `basic`" in text for text in record["warnings"])


def test_the_reports_name_each_rate_and_show_each_language(runs: Mapping[str, Path]) -> None:
    baseline, evaluation = (
        page(runs[name] / f"{name.split('-')[0]}.ipynb")
        for name in ("baseline-tiny", "evaluate-tiny-short")
    )
    assert re.search(r"mandarin: CER \d", baseline) and re.search(r"news: WER \d", baseline)
    for shown in ("language: zh | 6 | 6 | CER ", "language: de | 6 | 6 | WER "):
        assert shown in baseline and shown in evaluation, shown
    assert "| all | 18 | 18 | MER " in baseline and "| meetings | MER | 18 |" in evaluation
    assert "characters a second" in baseline and "words a second" in baseline
    (card,) = runs["card"].glob("train-*.md")
    text = card.read_text("utf-8")
    assert "| meetings | what it could do before | CER zh | 6 |" in text
    assert "chinese 1 (fingerprint" in text and "for mandarin zh, meetings zh" in text
    (experiment,) = experiments_in(runs["card"].parent.parent)
    table = summary_html(experiment)
    for title in ("mandarin: CER", "meetings: MER", "meetings: CER zh", "meetings: WER de"):
        assert f">{title}</th>" in table


def test_runs_are_compared_by_the_rules_in_their_records(
    runs: Mapping[str, Path], tmp_path: Path
) -> None:
    pair = runs["baseline-tiny"], runs["evaluate-tiny-short"]
    record = read_result(pair[1])
    assert comparison.rules_in(record) == ScoringRules()
    assert len(comparison.comparable(*pair)) == 2
    said = command("compare", *pair)
    assert said.code == 0, said.err
    (folder,) = pair[0].parent.glob("compare-*")
    report = page(folder / "compare.ipynb")
    assert "CER of the first" not in report and "| rate of the first | rate |" in report
    assert re.search(r"\| mandarin \| .* \| CER \d.* \| CER \d", report)
    metrics = result(folder)["metrics"]
    assert metrics["mandarin.cer_change"] == record.metrics["mandarin.cer_change"]
    for test_set, code, fits in (("news", "ar", False), ("elsewhere", "ar", True)):
        other = json.loads((pair[1] / "result.json").read_text("utf-8"))
        used = other["inputs"]["normaliser"]["used"]
        used.setdefault(test_set, {})[code] = dict(used["news"]["ar"], version=99)
        copy = tmp_path / test_set
        copy.mkdir()
        (copy / "result.json").write_text(json.dumps(other), "utf-8")
        write_predictions(
            read_predictions(pair[1] / "predictions.jsonl"), copy / "predictions.jsonl"
        )
        if fits:
            assert comparison.comparable(pair[0], copy)
        else:
            with pytest.raises(BadInput, match="news ar normaliser version: 99"):
                comparison.comparable(pair[0], copy)


def test_the_plan_says_what_has_no_rules_and_a_set_may_name_its_own(tmp_path: Path) -> None:
    for name in (*SETS, "meetings"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "one").write_text("")
    (tmp_path / "tiny").mkdir()
    (tmp_path / "six.yaml").write_text(experiment())
    lab = load_experiment(tmp_path / "six.yaml")
    assert [(note.code, note.where) for note in scoring_notes(lab)] == [
        ("no-normaliser", "radio"),
        ("language-not-stated", "meetings"),
    ]
    (tmp_path / "six.yaml").write_text(experiment("english", mandarin="chinese", meetings="auto"))
    rules = load_experiment(tmp_path / "six.yaml").rules
    places = ("it", "radio"), ("zh", "mandarin"), ("ar", "news"), ("zh", "meetings")
    names = [rules.rule(*place).name for place in places]
    assert names == ["english", "chinese", "english", "chinese"]
    copy = write_experiment(load_experiment(tmp_path / "six.yaml"), tmp_path / "runs" / "copy.yaml")
    assert load_experiment(copy).rules == rules


@pytest.mark.skipif(CHROMIUM is None, reason="no Chromium here")
def test_the_lab_book_fits_the_page_and_no_interval_breaks(
    runs: Mapping[str, Path], tmp_path: Path
) -> None:
    html = re.sub("<meta http-equiv=[^>]*>", "", labbook_html(runs["card"].parent.parent))
    measure = """<script>
    const page = document.documentElement, cells = [...document.querySelectorAll("td.rate")];
    const broken = cells.filter(cell => {
      const range = document.createRange(); range.selectNodeContents(cell);
      return new Set([...range.getClientRects()].map(one => Math.round(one.top))).size > 1;
    });
    document.title = [page.scrollWidth <= page.clientWidth, cells.length, broken.length].join(" ");
    </script></body>"""
    (tmp_path / "book.html").write_text(html.replace("</body>", measure), "utf-8")
    how = "--headless", "--no-sandbox", "--disable-gpu", "--window-size=1280,900", "--dump-dom"
    process = subprocess.run(
        [CHROMIUM, *how, f"file://{tmp_path}/book.html"],
        capture_output=True,
        text=True,
        timeout=120,
    )
    fits, cells, broken = re.search("<title>(.*?)</title>", process.stdout)[1].split()
    assert (fits, broken) == ("true", "0") and int(cells) > 40
