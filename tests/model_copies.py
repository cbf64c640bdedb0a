"""Copies of a trained pair of models under other tags, which score and decide differently."""

import json
import shutil
from pathlib import Path

import numpy as np

CLASSIFIER, ENCODER = "feedsieve-classifier", "feedsieve-encoder"


def newest(home: Path, name: str = CLASSIFIER) -> str:
    return (home / "models" / name / "latest").read_text(encoding="utf-8").strip()


def copy_pair(home: Path, version: str, shift: float = 0.0, threshold: float = 0.5) -> str:
    """Copy the newest pair; `shift` is added to each logit. Return the classifier's tag.

    The copy's reference scores are those that it gives. The newest pair stays the newest.
    """
    _copy(home, ENCODER, version)
    folder = _copy(home, CLASSIFIER, version)
    change(folder / "classifier.json", encoder_tag=f"{ENCODER}:{version}", threshold=threshold)
    description = json.loads((folder / "classifier.json").read_text(encoding="utf-8"))
    calibration = description["calibration"]
    change(
        folder / "classifier.json",
        calibration=calibration | {"intercept": calibration["intercept"] + shift},
    )
    scores = np.array(json.loads((folder / "reference.json").read_text(encoding="utf-8"))["scores"])
    change(folder / "reference.json", scores=shifted(scores, shift).tolist())
    return f"{CLASSIFIER}:{version}"


def shifted(scores: np.ndarray, shift: float) -> np.ndarray:
    """Return the scores of the copy for those of the original, 0 to 1."""
    return 1 / (1 + (1 - scores) / scores * np.exp(-shift))


def change(file: Path, **values: object) -> None:
    """Replace fields of a JSON file."""
    content = json.loads(file.read_text(encoding="utf-8"))
    file.write_text(json.dumps(content | values), encoding="utf-8")


def _copy(home: Path, name: str, version: str) -> Path:
    source = home / "models" / name / newest(home, name)
    folder = home / "models" / name / version
    shutil.copytree(source, folder)
    about = folder / "model.yaml"
    about.write_text(about.read_text().replace(f"version: {source.name}", f"version: {version}"))
    return folder
