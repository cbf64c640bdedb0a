"""A labelled data set, split for training."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from train.data.folds import SEED, folds
from train.data.labelled import read_labeled
from train.data.near_duplicates import near_duplicate_groups
from train.data.split import Split, data_fingerprint, split
from train.data.validation import checked


@dataclass(frozen=True)
class Dataset:
    """Labelled messages, their split, and the near-duplicate groups of the training part."""

    frame: pd.DataFrame
    parts: Split
    groups: np.ndarray  # (training messages,)
    unlabelled: Sequence[str]  # texts for distillation
    name: str  # of the file, or of another source
    is_of_sample: bool

    @classmethod
    def read(cls, path: Path) -> "Dataset":
        """Read and split a file. Raises InvalidData, and ValueError for too few messages."""
        return cls.of(read_labeled(path), name=path.name)

    @classmethod
    def of(
        cls,
        frame: pd.DataFrame,
        *,
        name: str,
        unlabelled: Sequence[str] = (),
        is_of_sample: bool = False,
    ) -> "Dataset":
        """Split the frame of `read_labeled`. Raises ValueError for too few messages."""
        parts = split(frame, SEED)
        groups = near_duplicate_groups(parts.train["msg"].tolist(), progress=False)
        dataset = cls(frame, parts, groups, unlabelled, name, is_of_sample)
        list(folds(dataset.labels, groups, SEED))  # fail early
        return dataset

    def __str__(self) -> str:
        return f"{len(self.frame):,} labels of {self.name}, fingerprint {self.fingerprint}"

    @property
    def fingerprint(self) -> str:
        return data_fingerprint(self.frame)

    @property
    def texts(self) -> list[str]:
        """The texts of the training part."""
        return self.parts.train["msg"].tolist()

    @property
    def labels(self) -> np.ndarray:
        """The labels of the training part, 0 or 1."""
        return self.parts.train["label"].to_numpy()

    @property
    def checked(self) -> np.ndarray:
        """Whether somebody has checked a label of the training part, (messages,), bool."""
        return checked(self.parts.train)

    @property
    def test_texts(self) -> list[str]:
        return self.parts.test["msg"].tolist()

    @property
    def test_labels(self) -> np.ndarray:
        return self.parts.test["label"].to_numpy()
