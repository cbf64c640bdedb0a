"""LightGBM's parameters."""

import json
from pathlib import Path
from typing import Any

PARAMETERS_FILE = Path(__file__).with_name("parameters.json")
FIXED: dict[str, Any] = {
    "objective": "binary",
    "metric": "binary_logloss",
    "deterministic": True,
    "force_row_wise": True,
    "verbosity": -1,
    "num_threads": 1,  # a third slower than two on an idle machine, ten times faster on a busy one
}
# For classifiers of a frozen and of a fine-tuned encoder, found by train.tune
# (docs/decisions/classifier.md).
PARAMETERS: dict[str, dict[str, Any]] = {
    encoder: FIXED | chosen
    for encoder, chosen in json.loads(PARAMETERS_FILE.read_text(encoding="utf-8")).items()
}
