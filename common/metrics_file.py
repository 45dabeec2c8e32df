"""``metrics.jsonl`` in the folder of a `fit` run: a line of JSON for each epoch."""

import json
from pathlib import Path
from typing import Any

FILE = "metrics.jsonl"


def read_rows(path: Path) -> list[dict[str, Any]]:
    """The whole lines of the file, without one that a killed run left half written; none where there is no file."""
    lines = path.read_text().splitlines(keepends=True) if path.is_file() else []
    return [json.loads(line) for line in lines if line.endswith("\n")]
