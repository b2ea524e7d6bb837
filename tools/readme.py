"""Write README.md from nbs/index.ipynb.

Markdown stays as it is, code is fenced, text outputs are indented, hidden cells are left out.
"""

import json
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


def cell_text(cell: dict) -> str:
    source = "".join(cell["source"])
    if source.startswith("#| hide"):
        return ""
    if cell["cell_type"] == "markdown":
        return source
    code = "\n".join(line for line in source.splitlines() if not line.startswith("#|")).strip()
    outputs = [
        "".join(o.get("text") or o.get("data", {}).get("text/plain", ""))
        for o in cell.get("outputs", [])
    ]
    shown = "\n".join(f"    {line}" for output in outputs for line in output.splitlines())
    return f"```python\n{code}\n```" + (f"\n\n{shown}" if shown else "") if code else ""


def readme() -> str:
    cells = json.loads((ROOT / "nbs" / "index.ipynb").read_text(encoding="utf-8"))["cells"]
    return "\n\n".join(text for text in map(cell_text, cells) if text) + "\n"


if __name__ == "__main__":
    path, text = ROOT / "README.md", readme()
    if "--check" in sys.argv:
        sys.exit(
            0
            if path.read_text(encoding="utf-8") == text
            else "README.md is not what nbs/index.ipynb says: run `make sync`"
        )
    path.write_text(text, encoding="utf-8")
