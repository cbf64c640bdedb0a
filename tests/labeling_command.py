"""Texts, files and the command that tests of labeling share."""

import csv
import os
import random
import subprocess
from pathlib import Path

from python_process import run_python
from serving import ROOT

WORDS = ["amber", "birch", "cedar", "delta", "ember", "fjord", "grove", "haven", "inlet", "jetty"]
NASTY = [
    "<b>bold</b> <script>alert(1)</script> <img src=x onerror=alert(1)>",
    "https://example.org/?a=1&b=2",  # nothing but a link
    "s3://bucket/key and upload/1.txt",
    "$msg {{msg}} ${msg} %s ]]> &amp; \"quoted\" 'single'",
    "two\nlines\r\nand a\ttab",
    "a family \U0001f468\u200d\U0001f469\u200d\U0001f467 moves \U0001f3e0 в Лимассол, €900",
    "nul \x00 here, bell \x07, half a pair \ud83c",
    "=1+1",
]


def texts(count: int, seed: int = 0) -> list[str]:
    """Return texts without near-duplicates among them."""
    rng = random.Random(seed)
    return [" ".join(rng.choices(WORDS, k=12)) for _ in range(count)]


def write_csv(path: Path, columns: list[str], *rows: list[str]) -> Path:
    with path.open("w", encoding="utf-8", newline="", errors="surrogatepass") as file:
        csv.writer(file).writerows([columns, *rows])
    return path


def rows_of(path: Path) -> dict[str, dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as file:
        return {row["msg_id"]: row for row in csv.DictReader(file)}


def labeling(*arguments, home: Path, **variables: str) -> subprocess.CompletedProcess[str]:
    """Run `python -m labeling` with an empty model store."""
    environment = os.environ | {"BENTOML_HOME": str(home / "bentoml"), "PYTHONPATH": str(ROOT)}
    environment |= {"COLUMNS": "100"} | variables
    return run_python("-m", "labeling", *arguments, cwd=home, env=environment)
