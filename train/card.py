"""What a model is good for and where it fails, in words, beside the model wherever it goes.

The sections are those of Mitchell et al., "Model Cards for Model Reporting", FAT* 2019. The text of
no message is in it.
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

from feedsieve.files import open_whole
from feedsieve.language import LANGUAGES, language
from feedsieve.text import normalise
from train.behaviour.outcome import Outcome
from train.data import Split, data_fingerprint

FILE = "card.md"
WEAKER = 0.05  # of F1, below that of all messages: what makes a slice weak
FEWEST_POSITIVES = 10  # that a slice's F1 is taken seriously from
WEAKEST = 3  # slices that are named
INTENDED_USE = (
    "To rank the messages of the chats that the labelled ones come from, or of chats very like"
    " them, so that a reader sees first what the labels call positive.",
    "To leave out what scores below the threshold, where a reader can still look at all of it.",
    "To choose which messages a person labels next.",
)
NOT_INTENDED_FOR = (
    "To decide anything about people: who wrote, who is answered, who is trusted. A high score says"
    " that a message reads like those labelled positive, not that it is true or honest.",
    "Other subjects, languages or chats than those it learnt from, unless messages of theirs are"
    " labelled and it is judged on them first.",
    "To delete or hide messages without a person looking at them.",
    "To compare scores with another model's: threshold and calibration are this model's own.",
)
_LIBRARIES = (
    "lightgbm", "numpy", "onnxruntime", "optimum-onnx", "scikit-learn", "tokenizers", "torch",
    "transformers",
)  # fmt: skip
_PARTS = {"test": "test part", "validation": "held-out folds"}
_FIGURES = ("f1", "precision", "recall", "average_precision", "brier", "ece", "n", "positives")
_MARKDOWN = re.compile(r"[\\`*_\[\]<>&|~#!$]")


@dataclass(frozen=True)
class Data:
    """The labelled messages: counts, and how they were split. `parts` are (messages, positives)."""

    fingerprint: str
    parts: Mapping[str, tuple[int, int]]
    has_subset: bool
    languages: Mapping[str, int]

    @classmethod
    def of(cls, frame: pd.DataFrame, parts: Split) -> "Data":
        """Describe what `read_labeled` and `split` returned."""
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
    def parameters(self) -> dict[str, Any]:
        """Its figures by name, as a run in MLflow has them."""
        counts: dict[str, int] = {}
        for name, (messages, positives) in self.parts.items():
            part = name.removesuffix(" part")
            counts |= {f"{part}.messages": messages, f"{part}.positives": positives}
        counts |= {f"language.{name}": count for name, count in self.languages.items()}
        return {
            "data.fingerprint": self.fingerprint,
            "data.has subset": self.has_subset,
            **{f"data.{name}": count for name, count in counts.items()},
        }

    @property
    def lines(self) -> list[str]:
        messages, positives = map(sum, zip(*self.parts.values(), strict=True))
        split = (
            "as the file's subset column says, which may have parted near-duplicates"
            if self.has_subset
            else "by chance, with both labels in proportion and near-duplicates on one side"
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
    """What the card is written from; what is not given is left out of it.

    `metrics` is what `metrics.json` holds, `source` the encoder's name (`export.sources.Source`),
    `slices` what `train.slices.by_slice` returns for the test part and `precision_at` what
    `train.slices.precisions_at` does. `arguments` are those of `python -m train` that decide what
    comes out, without paths that are nobody else's.
    """

    metrics: Mapping[str, Any]
    data: Data | None = None
    source: str = ""
    max_tokens: int | None = None  # that the encoder reads
    slices: Sequence[Mapping[str, Any]] = ()
    precision_at: Mapping[str, float] = field(default_factory=dict)
    behaviour: Outcome | None = None
    versions: Mapping[str, str] = field(default_factory=dict)
    arguments: Sequence[str] = ()

    @property
    def training(self) -> list[str]:
        """How the model was trained."""
        metrics = self.metrics
        history = metrics.get("finetuning") or []
        tuned = "fine-tuned on the training part" if history else "not fine-tuned"
        columns = ", ".join(
            name if width == 1 else f"{name} ({width} columns)"
            for name, width in metrics.get("features", {}).items()
            if width
        )
        named = ", ".join(f"{name} {number}" for name, number in self.versions.items())
        return [
            *([f"Encoder: {self.source}, {tuned}"] if self.source else []),
            *_distillation(metrics.get("distillation", {})),
            *_finetuning(history),
            *_export(metrics.get("precision", {}), metrics.get("export", {})),
            *([f"LightGBM reads: {columns}"] if columns else []),
            *([f"LightGBM's trees: {metrics['rounds']:,}"] if "rounds" in metrics else []),
            *_by_words(metrics),
            "Calibration (Platt) and threshold: from scores of held-out folds",
            *([f"Seed: {metrics['seed']}"] if "seed" in metrics else []),
            *([f"Versions: {named}"] if named else []),
        ]

    @property
    def known_failures(self) -> list[str]:
        """Where the model fails: as its own figures tell, and as any model like it does."""
        most = f"{self.max_tokens} tokens" if self.max_tokens else "part"
        return [
            *_weak_slices(self.slices, self.metrics.get("test", {}).get("f1")),
            *_untold_slices(self.slices),
            *(
                f"Behaviour, {check.kind}, {check.name}: {check}"
                for check in (self.behaviour.failed if self.behaviour else [])
            ),
            "Labels are noisy: people err and disagree. Some of what counts as the model's error is"
            " the label's, and the model has learnt from such labels too.",
            "Texts are read in lower case and without emoji. What only those say is lost.",
            f"Of a long message the encoder reads the first {most} and no more.",
            "Topics drift: prices, places and ways of writing change, and the figures hold for"
            " messages like those of the test part. Label new ones and train again.",
            "Messages hold personal data: names, telephone numbers, addresses. The model stores no"
            " message, but pieces of words, a short name perhaps whole, and may react to what was"
            " often repeated. Treat it as you treat the messages.",
        ]


def installed_versions() -> dict[str, str]:
    """Return the versions of Python and of the libraries that figures depend on."""
    found = {"Python": platform.python_version()}
    for name in _LIBRARIES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:  # some builds are installed under another name
            continue
    return found


def render(card: Card) -> str:
    """Return the card as Markdown: the same card, the same text."""
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=False,  # for HTML; `finalize` escapes for Markdown
        finalize=_escaped,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    command = shlex.join(["python", "-m", "train", "--data", "LABELED.csv", *card.arguments])
    return environment.get_template("card.md.j2").render(
        card=card,
        tags={
            name: tag
            for name in ("classifier", "encoder")
            if (tag := card.metrics.get(f"{name}_tag"))
        },
        threshold=card.metrics.get("threshold"),
        intended_use=INTENDED_USE,
        not_intended_for=NOT_INTENDED_FOR,
        parts={
            title: [card.metrics[name].get(figure) for figure in _FIGURES]
            for name, title in _PARTS.items()
            if card.metrics.get(name)
        },
        precision_at={name.rpartition("_")[2]: value for name, value in card.precision_at.items()},
        checks=sorted(card.behaviour.checks, key=lambda check: check.passed)
        if card.behaviour
        else [],
        command=Markup(normalise(command)),  # on one line, so that nothing in it ends the block
    )


def write(folder: Path, card: Card) -> Path:
    """Write `card.md` into `folder`, whole or not at all, and return its path. Raises OSError."""
    with open_whole(folder / FILE) as file:
        file.write(render(card))
    return folder / FILE


def _distillation(told: Mapping[str, Any]) -> list[str]:
    """Return a line about the layers that were kept, none if all were."""
    if not told:
        return []
    kept = ", ".join(map(str, told["layers"]))
    return [
        f"Distillation: layers {kept} of {told['of']}, which first imitated the whole on"
        f" {told['texts']:,} messages, and missed {told['history'][-1]['loss']:.1%} of the variance"
        " of its output"
    ]


def _finetuning(history: Sequence[Mapping[str, float]]) -> list[str]:
    """Return a line for each kind of encoder that was trained, none if there were none."""
    best: dict[float | None, dict[float, float]] = {}  # by layers, then by encoder
    for row in history:
        if "average_precision" in row:  # not of the last encoder, which learns all of them
            figure = row["average_precision"]
            kind = best.setdefault(row.get("layers"), {})
            kind[row["encoder"]] = max(figure, kind.get(row["encoder"], figure))
    lines = [
        f"Fine-tuning: {len(kind)} encoders{f' of {layers} layers' if len(best) > 1 else ''},"
        " each without a part of the messages, average precision on that part"
        f" {min(kind.values()):.3f} to {max(kind.values()):.3f}"
        for layers, kind in best.items()
    ]
    if lines:
        lines[-1] += "; then one, which is kept, with all of them"
    return lines


def _export(precision: Mapping[str, Any], checks: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """Return lines about the precision of the weights, and how the ONNX file was checked."""
    if "chosen" not in precision:
        return []
    lines = [f"Encoder's weights: {precision['chosen']}"]
    if precision.get("reason"):
        lines[0] += f" ({precision['reason']})"
    check = checks.get(precision["chosen"], {})
    if check.keys() >= {"messages", "mean_cosine", "lowest_cosine"}:
        lines.append(
            f"ONNX against PyTorch on {check['messages']:,} messages: cosine"
            f" {check['mean_cosine']:.4f} on average, {check['lowest_cosine']:.4f} at least"
        )
    return lines


def _by_words(metrics: Mapping[str, Any]) -> list[str]:
    """Say how many messages words alone answer, if the classifier has a cascade."""
    validation = metrics.get("validation", {})
    if not validation.get("by_words"):
        return []
    return [
        f"Answered by words alone: {validation['by_words']:.0%} of the messages of held-out folds;"
        f" without that their F1 is {validation['f1_without_cascade']:.3f}"
    ]


def _is_told(row: Mapping[str, Any]) -> bool:
    return row["f1"] is not None and row["positives"] >= FEWEST_POSITIVES


def _weak_slices(slices: Sequence[Mapping[str, Any]], overall: float | None) -> list[str]:
    """Return a line about each of the weakest slices, the weakest first; `overall` is F1 of all."""
    if overall is None:
        return []
    weak = [row for row in slices if _is_told(row) and row["f1"] < overall - WEAKER]
    return [
        f"Weaker than on all messages, {row['slice']} {row['name']}: F1 {row['f1']:.3f} against"
        f" {overall:.3f} (precision {row['precision']:.3f}, recall {row['recall']:.3f};"
        f" {_counts(row)})"
        for row in sorted(weak, key=lambda row: row["f1"])[:WEAKEST]
    ]


def _untold_slices(slices: Sequence[Mapping[str, Any]]) -> list[str]:
    untold = [
        f"{row['slice']} {row['name']} ({_counts(row)})" for row in slices if not _is_told(row)
    ]
    return [f"Not known, for want of test messages: {'; '.join(untold)}"] if untold else []


def _counts(row: Mapping[str, Any]) -> str:
    return f"{row['n']:,} messages, {row['positives']:,} positive"


def _escaped(value: Any) -> str:
    """Return what stands for `value` in Markdown: numbers as they are read, text as it is."""
    if isinstance(value, Markup):
        return value
    if value is None or (isinstance(value, float) and not math.isfinite(value)):
        return "—"
    if isinstance(value, float):
        return f"{value:.3f}"
    if isinstance(value, int):
        return f"{value:,}"
    return _MARKDOWN.sub(r"\\\g<0>", normalise(str(value)))
