"""The model card: intended use, known failures, data, training and figures of a pair of models.

The sections follow Mitchell et al., "Model Cards for Model Reporting", FAT* 2019. A card has no
message text.
"""

import math
import platform
import re
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import pandas as pd
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from feedsieve.files import open_atomically
from feedsieve.language import LANGUAGES, language
from feedsieve.text import normalise
from train.behaviour.outcome import Outcome
from train.data.split import Split, data_fingerprint

FILE = "card.md"
WEAKER = 0.05  # a slice is weak if its F1 is this much below that of all messages
FEWEST_POSITIVES = 10  # for the F1 of a slice to mean something
WEAKEST = 3  # weak slices to name
INTENDED_USE = (
    "Rank messages of the chats that the labelled messages come from, or of very similar chats, so"
    " that readers see positive messages first.",
    "Hide messages below the threshold from a feed, while readers can still see all of them.",
    "Choose which messages to label next.",
)
NOT_INTENDED_FOR = (
    "Decisions about people: who wrote, who gets an answer, who is trusted. A high score means that"
    " a message reads like the positive ones, not that it is true or honest.",
    "Other subjects, languages or chats than those of the training data, unless messages of theirs"
    " are labelled and the model is evaluated on them first.",
    "Deleting or hiding messages without review by a person.",
    "Comparing scores with those of another model: threshold and calibration differ.",
)
_GENERAL_FAILURES = (
    "Labels are noisy: people err and disagree. Some errors of the model are errors of labels, and"
    " it was trained on such labels too.",
    "Texts are read in lower case and without emoji, whose meaning is lost.",
    "The encoder reads only the first {tokens} of a long message.",
    "Topics drift: prices, places and ways of writing change. The figures only hold for messages"
    " like those of the test part: label new ones and train again.",
    "Messages contain personal data: names, telephone numbers, addresses. The model stores no"
    " message, but it stores pieces of words, which can be a short name, and it may have memorised"
    " text that was often repeated. Treat it as confidentially as the messages.",
)
_LIBRARIES = (
    "lightgbm", "numpy", "onnxruntime", "optimum-onnx", "scikit-learn", "tokenizers", "torch",
    "transformers",
)  # fmt: skip
_PARTS = {
    "test": "test part",
    "test_adjudicated": "test part, by adjudicated labels",
    "validation": "held-out folds",
}
_FIGURES = ("f1", "precision", "recall", "average_precision", "brier", "ece", "n", "positives")
_MARKDOWN = re.compile(r"[\\`*_\[\]<>&|~#!$]")


@dataclass(frozen=True)
class Data:
    """Description of the labelled messages and their split; `parts` are (messages, positives)."""

    fingerprint: str
    parts: Mapping[str, tuple[int, int]]
    has_subset: bool
    languages: Mapping[str, int]

    @classmethod
    def of(cls, frame: pd.DataFrame, parts: Split) -> "Data":
        """Describe the frame of `read_labeled` and its `split`."""
        names = frame["msg"].map(language)
        return cls(
            fingerprint=data_fingerprint(frame),
            parts={
                "training part": (len(parts.train), int(parts.train["label"].sum())),
                "test part": (len(parts.test), int(parts.test["label"].sum())),
            },
            has_subset="subset" in frame,
            languages={name: count for name in LANGUAGES if (count := int((names == name).sum()))},
        )

    @property
    def counts(self) -> dict[str, int]:
        """Number of messages, and of positive ones, of each part."""
        return {
            f"{name}, {what}": count
            for name, part in self.parts.items()
            for what, count in zip(("messages", "positives"), part, strict=True)
        }

    @property
    def parameters(self) -> dict[str, Any]:
        """Parameters of a run in MLflow."""
        found: dict[str, Any] = {
            "data.fingerprint": self.fingerprint,
            "data.has subset": self.has_subset,
        }
        for name, (messages, positives) in self.parts.items():
            part = f"data.{name.removesuffix(' part')}"
            found |= {f"{part}.messages": messages, f"{part}.positives": positives}
        return found | {f"data.language.{name}": count for name, count in self.languages.items()}

    @property
    def lines(self) -> list[str]:
        messages, positives = map(sum, zip(*self.parts.values(), strict=True))
        split = (
            "by the file's subset column, which may separate near-duplicates"
            if self.has_subset
            else "at random, stratified by label, with near-duplicates in one part"
        )
        languages = ", ".join(f"{name} {count:,}" for name, count in self.languages.items())
        return [
            f"{messages:,} labelled messages, {positives:,} of them positive"
            f" ({positives / messages:.1%})",
            *(
                f"{name}: {count:,} messages, {positive:,} of them positive"
                for name, (count, positive) in self.parts.items()
            ),
            f"Split {split}",
            f"Languages, by script: {languages}",
            f"Fingerprint: {self.fingerprint}",
        ]


@dataclass(frozen=True)
class Card:
    """Contents of a card; what is missing is left out.

    `metrics` is the contents of `metrics.json`, `source` the encoder's name
    (`export.sources.Source`). `slices` and `precision_at` are of the test part, from
    `train.evaluation.slices`. `arguments` are those of `python -m train` that affect the result,
    without private paths.
    """

    metrics: Mapping[str, Any]
    data: Data | None = None
    source: str = ""
    max_tokens: int | None = None  # of the encoder
    slices: Sequence[Mapping[str, Any]] = ()
    precision_at: Mapping[str, float] = field(default_factory=dict)
    behaviour: Outcome | None = None
    versions: Mapping[str, str] = field(default_factory=dict)
    arguments: Sequence[str] = ()

    @property
    def finetuning(self) -> list[tuple[int | None, list[float]]]:
        """For each size of cross-fitted encoders: layers, and the best average precision of each.

        The encoder in use, which has no held-out part, is not among them.
        """
        best: dict[int | None, dict[float, float]] = {}  # by layers, then by encoder
        for row in self.metrics.get("finetuning") or ():
            if "average_precision" in row:
                encoders = best.setdefault(row.get("layers"), {})
                figure = row["average_precision"]
                encoders[row["encoder"]] = max(figure, encoders.get(row["encoder"], figure))
        return [(layers, list(encoders.values())) for layers, encoders in best.items()]

    @property
    def known_failures(self) -> list[str]:
        """Lines about failures of this model, and of every model like it."""
        tokens = f"{self.max_tokens} tokens" if self.max_tokens else "part"
        return [
            *_weak_slices(self.slices, self.metrics.get("test", {}).get("f1")),
            *_unknown_slices(self.slices),
            *(
                f"Behaviour, {check.kind}, {check.name}: {check}"
                for check in (self.behaviour.failed if self.behaviour else [])
            ),
            *(line.format(tokens=tokens) for line in _GENERAL_FAILURES),
        ]


def installed_versions() -> dict[str, str]:
    """Return the versions of Python and of the libraries that affect the figures."""
    found = {"Python": platform.python_version()}
    for name in _LIBRARIES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:  # installed under another name
            continue
    return found


def render(card: Card) -> str:
    """Return the card as Markdown."""
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=False,  # for HTML; `finalize` escapes for Markdown
        finalize=_escape,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    command = shlex.join(["python", "-m", "train", "--data", "LABELED.csv", *card.arguments])
    tags = {name: card.metrics.get(f"{name}_tag") for name in ("classifier", "encoder")}
    checks = card.behaviour.checks if card.behaviour else []
    return environment.get_template("card.md.j2").render(
        card=card,
        metrics=card.metrics,
        tags={name: tag for name, tag in tags.items() if tag},
        intended_use=INTENDED_USE,
        not_intended_for=NOT_INTENDED_FOR,
        parts={
            title: [card.metrics[name].get(figure) for figure in _FIGURES]
            for name, title in _PARTS.items()
            if card.metrics.get(name)
        },
        precision_at={name.rpartition("_")[2]: value for name, value in card.precision_at.items()},
        checks=sorted(checks, key=lambda check: check.passed),
        command=Markup(normalise(command)),  # on one line, so that it cannot end the code block
    )


def write(folder: Path, card: Card) -> Path:
    """Write `card.md` into `folder` atomically, and return its path. Raises OSError."""
    with open_atomically(folder / FILE) as file:
        file.write(render(card))
    return folder / FILE


def _is_known(row: Mapping[str, Any]) -> bool:
    return row["f1"] is not None and row["positives"] >= FEWEST_POSITIVES


def _weak_slices(slices: Sequence[Mapping[str, Any]], overall: float | None) -> list[str]:
    """Return a line for each of the weakest slices; `overall` is the F1 of all messages."""
    if overall is None:
        return []
    weak = [row for row in slices if _is_known(row) and row["f1"] < overall - WEAKER]
    return [
        f"Weaker than on all messages, {row['slice']} {row['name']}: F1 {row['f1']:.3f} against"
        f" {overall:.3f} (precision {row['precision']:.3f}, recall {row['recall']:.3f};"
        f" {_counts(row)})"
        for row in sorted(weak, key=lambda row: row["f1"])[:WEAKEST]
    ]


def _unknown_slices(slices: Sequence[Mapping[str, Any]]) -> list[str]:
    unknown = [
        f"{row['slice']} {row['name']} ({_counts(row)})" for row in slices if not _is_known(row)
    ]
    return [f"Unknown, too few test messages: {'; '.join(unknown)}"] if unknown else []


def _counts(row: Mapping[str, Any]) -> str:
    return f"{row['n']:,} messages, {row['positives']:,} positive"


def _escape(value: Any) -> str:
    """Format a number, or escape text for Markdown."""
    if isinstance(value, Markup):
        return value
    if value is None or (isinstance(value, float) and not math.isfinite(value)):
        return "—"
    if isinstance(value, float):
        return f"{value:.3f}"
    if isinstance(value, int):
        return f"{value:,}"
    return _MARKDOWN.sub(r"\\\g<0>", normalise(str(value)))
