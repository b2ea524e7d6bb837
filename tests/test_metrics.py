"""A new metric is one function and one entry, and a figure of one's own is a function: nothing else
is touched."""

import json
from dataclasses import replace
from pathlib import Path

import nbformat
import pytest
from asr_nb.checks import write_atomic
from asr_nb.evaluation import summary
from asr_nb.evaluation.decoding import Prediction, write_predictions
from asr_nb.evaluation.intervals import Interval, interval_text
from asr_nb.preprocessing.text.normalisers import normaliser
from asr_nb.publishing.card import ModelRecords, card_body, result_table
from asr_nb.reports import tables
from asr_nb.reports.labbook import labbook_html, experiments_in, summary_html, summary_text
from asr_nb.runs import comparison, decodes, upstream
from asr_nb.runs.experiment import CorpusSpec, Experiment, ModelSpec, write_experiment
from asr_nb.runs.record import RunInProgress, markdown, read_result
from nbclient import NotebookClient
from nbformat.v4 import new_code_cell, new_notebook

CALLS = Experiment(
    "calls",
    "Does it help?",
    CorpusSpec("calls", "folder", "en", options={"path": "."}),
    (ModelSpec("micro", "micro"),),
    (CorpusSpec("noises", "nonspeech", "en", role="nonspeech"),),
)
MODEL = {"model": "micro"}
RUNS = {  # folder -> stage and parameters
    "baseline-micro-1": ("baseline", MODEL),
    "train-micro-full-1": ("train", MODEL | {"recipe": "full"}),
    "evaluate-micro-full-1": (
        "evaluate",
        MODEL
        | {
            "recipe": "full",
            "trained": "../train-micro-full-1",
            "baseline": "../baseline-micro-1",
        },
    ),
}


def predictions(calls: str, noises: str) -> upstream.PredictionsBySet:
    """Eight speakers who say the same sentence, and eight noises; what was written for each."""
    row = Prediction("", "calls", "we meet at five", calls, "en", 2.0)
    quiet = replace(row, test_set="noises", reference="", hypothesis=noises)
    return {
        "calls": [replace(row, id=f"c{n}", speaker=f"s{n}") for n in range(8)],
        "noises": [replace(quiet, id=f"n{n}", recording=f"r{n}") for n in range(8)],
    }


BEFORE, AFTER = predictions("we meet", ""), predictions("we meet at five", "thanks")


def length(sample: summary.Sample) -> summary.Counts:
    """The made-up metric: words of the hypothesis, for each second of audio."""
    words = sample.each(lambda row: len(row.hypothesis.split()))
    return words, sample.each(lambda row: row.duration)


@pytest.fixture
def measured(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An experiment's folder with the runs of RUNS, made after a metric was added."""
    entry = summary.Metric(
        "pace",
        "words a second",
        length,
        ("target", "source", "nonspeech"),
        "words a second",
        lower_is_better=False,
        compared=True,
    )
    monkeypatch.setitem(summary.METRICS, "pace", entry)  # the one entry
    write_experiment(CALLS, tmp_path / "calls" / "experiment.yaml")
    normalise = normaliser("basic")
    for name, (stage, parameters) in RUNS.items():
        folder = tmp_path / "calls" / name
        spec = {"stage": stage, "experiment": "calls", "run": name, "parameters": parameters}
        write_atomic(folder / "run.json", json.dumps(spec))
        run = RunInProgress(stage, folder)
        if stage != "train":
            after = AFTER if stage == "evaluate" else BEFORE
            decodes.summarise_all(CALLS, after, normalise, run)
        if stage == "evaluate":
            comparison.differences(BEFORE, AFTER, normalise, run)
        run.finish("FAILED: the warm-up never ended." if stage == "train" else "Measured.")
    return tmp_path


def story(folder: Path) -> ModelRecords:
    """The records around the trained model, as a card reads them."""
    baseline, trained, evaluated = (read_result(folder / "calls" / name) for name in RUNS)
    return ModelRecords(CALLS, trained, None, baseline, evaluated, ())


def test_a_metric_is_in_the_record_the_tables_the_card_and_the_lab_book(measured: Path) -> None:
    record = story(measured).evaluation
    assert record.metrics["calls.pace"]["value"] == 2.0
    assert record.metrics["calls.pace_change"]["value"] == 1.0
    value, faster = (record.metrics[f"calls.pace{end}"] for end in ("", "_change"))
    faster = interval_text(faster, difference=True)
    assert faster.startswith("+1 words a second [")
    assert f"| calls.pace_change | {faster} | 8 |" in markdown(record)
    rates = {"calls": summary.summarise(AFTER["calls"], "target", normaliser("basic"))}
    assert "words a second" in [row["metric"] for row in tables.rate_rows(rates)]
    change = next(
        row
        for row in tables.difference_rows(BEFORE, AFTER, normaliser("basic"))
        if row["test set"] == "calls" and row["metric"] == "words a second"
    )
    assert change["verdict"] == "**better**", "more of it is better"
    cards = [
        line for line in result_table(story(measured)).splitlines() if "words a second" in line
    ]
    assert len(cards) == 2 and all(line.endswith("| **better** |") for line in cards)
    (experiment,) = experiments_in(measured)
    table = summary_html(experiment)
    assert ">calls: words a second</th>" in table
    cells = interval_text(value), faster, "<b>better</b>"
    assert "".join(f'<td class="rate better">{cell}</td>' for cell in cells) in table


def test_without_its_entry_no_page_knows_it(
    measured: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delitem(summary.METRICS, "pace")
    assert "words a second" not in result_table(story(measured)) + summary_html(
        experiments_in(measured)[0]
    )


def test_words_where_nobody_speaks_are_compared_everywhere(measured: Path) -> None:
    change = "+30.0 words per minute [+11.4, +48.6; 8 blocks]"
    rows = tables.difference_rows(BEFORE, AFTER, normaliser("basic"))
    table = [row for row in rows if row["metric"] == "words per minute"]
    assert [(row["difference"], row["verdict"]) for row in table] == [(change, "**WORSE**")]
    assert f"| {change} | **WORSE** |" in result_table(story(measured))
    (experiment,) = experiments_in(measured)
    assert f'{change}</td><td class="rate worse"><b>WORSE</b>' in summary_html(experiment)
    assert f"worse: noises: {change}" in summary_text(experiment)
    assert any(change in text for text in story(measured).evaluation.warnings)


def test_failed_and_better_are_reconciled_wherever_both_stand(measured: Path) -> None:
    better = Interval(-0.5, -0.6, -0.4, 8, 8)
    sentence = tables.reconciliation("FAILED: the warm-up never ended.", better)
    assert sentence and tables.reconciliation("Falling.", better) == ""
    (experiment,) = experiments_in(measured)
    assert sentence in summary_html(experiment) and sentence in summary_text(experiment)
    known = story(measured)
    recipe = {"name": "full", "method": "full", "steps": 1, "learning_rate": 1.0, "note": ""}
    model = {"source": "micro", "revision": ""}
    training = replace(known.training, inputs={"model": model, "recipe": recipe})
    assert sentence in card_body(replace(known, training=training))
    shipped = (Path(__file__).parent.parent / "nbs" / "lab" / "evaluate.ipynb").read_text("utf-8")
    assert "tables.reconciliation(" in shipped, "the evaluation's report says it, too"


FIGURE = """
import matplotlib.pyplot as plt


def lengths(predictions):
    "A figure that this package knows nothing of."
    figure, axis = plt.subplots(figsize=(2, 1))
    axis.hist([len(row.hypothesis) for row in predictions])
    axis.set_title(f"{len(predictions)} utterances")
    return figure
"""
CELLS = (
    "from asr_nb.evaluation.decoding import read_predictions\n"
    "from asr_nb.reports import figures\n"
    "from asr_nb.runs import record\n"
    "run = record.start('evaluate')\n"
    "figures.style()",
    "import own_figures\nown_figures.lengths(read_predictions('predictions.jsonl'));",
    "run.finish('Drawn.')",
)


def test_a_figure_from_outside_is_in_the_report_and_the_lab_book(
    measured: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = "evaluate-micro-full-1"
    folder = measured / "calls" / name
    (measured / "own_figures.py").write_text(FIGURE)
    monkeypatch.setenv("PYTHONPATH", f"{measured}:{Path(tables.__file__).parents[2]}")
    write_predictions(AFTER["calls"], folder / "predictions.jsonl")
    notebook = new_notebook(cells=[new_code_cell(cell) for cell in CELLS])
    NotebookClient(notebook, timeout=300, resources={"metadata": {"path": str(folder)}}).execute()
    pictures = [
        output
        for cell in notebook.cells
        for output in cell.outputs
        if "image/png" in output.get("data", {})
    ]
    assert len(pictures) == 1, "the user's figure, drawn once"
    nbformat.write(notebook, folder / "evaluate.ipynb")
    assert read_result(folder).verdict == "Drawn."
    page = labbook_html(measured)
    assert "data:image/png;base64," in page and "own_figures" in page
