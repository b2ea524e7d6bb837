"""What several tests make: a data set as the Hub has it, and a source that was prepared."""

import io
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np

    from asr_nb.preprocessing.corpus.utterances import Ledger, Utterance


def parquet(columns: Mapping[str, Sequence[Any]]) -> bytes:
    "Columns of text, and `audio` with bytes and a path, under a schema that says so."
    import pyarrow
    import pyarrow.parquet
    from datasets import Audio, Features, Value

    schema = Features(
        {name: Audio() if name == "audio" else Value("string") for name in columns}
    ).arrow_schema
    buffer = io.BytesIO()
    pyarrow.parquet.write_table(
        pyarrow.table(dict(columns), schema=schema), buffer, row_group_size=10
    )
    return buffer.getvalue()


def prepared_rows(
    source: str,
    name: str,
    language: str,
    options: Mapping[str, Any],
    ledger: "Ledger",
) -> "list[tuple[Utterance, np.ndarray]]":
    "Each utterance that the pipeline keeps of a source, and its samples. Raises BadInput."
    from asr_nb.preprocessing.sources.registry import open_rows
    from asr_nb.preprocessing.store.prepared import prepare_set

    with tempfile.TemporaryDirectory() as place:
        opened = open_rows(source, name, language, options, ledger)
        made, _ = prepare_set(opened, [], Path(place) / name.replace("/", "-"), ledger)
        return [(row, made.samples(row.id).copy()) for row in made.utterances]
