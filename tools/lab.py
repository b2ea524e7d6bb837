"""Execute a notebook of nbs/lab that belongs to no experiment, into papermill_runs/lab.

python tools/lab.py longform sentences=60
"""

import shutil
import sys
from pathlib import Path

from asr_nb.checks import BadInput, one_of
from asr_nb.cli import parse_parameters
from asr_nb.runs.experiment import lab_folder
from asr_nb.runs.notebook import execute
from asr_nb.runs.record import read_result

ROOT = Path(__file__).resolve().parent.parent


def main(stage: str, *parameters: str) -> int:
    """The exit code: 0 only if the run finished. The folder's name has the parameters in it."""
    one_of("notebook", stage, [path.stem for path in lab_folder().glob("*.ipynb")])
    options = parse_parameters(list(parameters))
    name = "-".join([stage, *(f"{key}-{value}" for key, value in options.items())])
    spec = {"experiment": "lab", "run": name, "stage": stage, "parameters": options, "upstream": []}
    folder = ROOT / "papermill_runs" / "lab" / name
    if read_result(folder):  # it ended before: begun anew; one that was killed goes on
        shutil.rmtree(folder)
    ending = execute(lab_folder() / f"{stage}.ipynb", folder, spec)
    print(f"{ending.status} {name} ({ending.seconds:.0f} s) {ending.reason}")
    return ending.status != "finished"


if __name__ == "__main__":
    try:
        sys.exit(main(*sys.argv[1:] or [""]))
    except BadInput as error:
        print(f"tools/lab.py: {error}", file=sys.stderr)
        sys.exit(2)
