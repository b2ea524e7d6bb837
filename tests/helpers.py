"""What several tests make: a data set as the Hub has it."""

import io
from collections.abc import Mapping, Sequence
from typing import Any


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
