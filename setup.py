"""Build asr_nb from settings.ini, the one home of its name, version and requirements."""

from configparser import ConfigParser
from pathlib import Path

from setuptools import find_packages, setup

HERE = Path(__file__).parent
config = ConfigParser()
config.read(HERE / "settings.ini", encoding="utf-8")
settings = config["DEFAULT"]
LAB = HERE / "nbs" / "lab"
OUR_OWN = {
    "benchmark",
    "coverage",
    "decode_speed",
    "score_speed",
    "verdicts",
}  # notebooks that measure asr_nb


def lines(key: str) -> list[str]:
    return [line.strip() for line in settings[key].splitlines() if line.strip()]


setup(
    name=settings["lib_name"],
    version=settings["version"],
    description=settings["description"],
    long_description=(HERE / "README.md").read_text(encoding="utf-8"),
    long_description_content_type="text/markdown",
    author=settings["author"],
    license=settings["license"],
    keywords=settings["keywords"],
    python_requires=f">={settings['min_python']}",
    packages=[
        *find_packages(include=["asr_nb", "asr_nb.*"], exclude=["asr_nb.benchmarks*"]),
        "asr_nb.lab",
    ],
    package_dir={"asr_nb.lab": "nbs/lab"},
    package_data={
        "asr_nb": ["micro/**", "micro/*"],
        "asr_nb.lab": [
            *sorted(path.name for path in LAB.glob("*.ipynb") if path.stem not in OUR_OWN),
            "experiments/*.yaml",
            "writeups/*.csv",
        ],
    },
    install_requires=lines("requirements"),
    extras_require={
        key.removeprefix("extra_"): lines(key) for key in settings if key.startswith("extra_")
    },
    entry_points={"console_scripts": ["asr-nb=asr_nb.cli:main"]},
)
