"""Push a batch to Label Studio, with a model's scores as predictions."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from tqdm import tqdm

from feedsieve.errors import FeedsieveError
from feedsieve.registry import current_model
from feedsieve.scoring.model_store import ModelNotFound, find_pair, load_scorer
from feedsieve.settings import settings
from feedsieve.text import fingerprint
from labeling.batch import Item, read_batch
from labeling.studio import Studio

TITLE = "feedsieve"
AUDIT_TITLE = "feedsieve audit"  # messages whose label is checked again
HELD_OUT = "held out"  # model version of out-of-fold scores of an audit
UNKNOWN = "unknown"  # model version of scores without a model
_CONFIGS = {TITLE: "config.xml", AUDIT_TITLE: "audit.xml"}
_TASKS_AT_ONCE = 500


class InvalidGuideline(FeedsieveError):
    """A guideline that cannot be read; the message says why."""


@dataclass(frozen=True)
class Pushed:
    """Result of a push."""

    title: str  # of the project
    added: int
    known: int  # in the project already, or earlier in the batch
    models: tuple[str, ...]  # of the predictions


def push(studio: Studio, path: Path, guideline: Path | None = None) -> Pushed:
    """Import the messages of a batch that are new to the project, which is created if need be.

    The `guideline`, a text file, becomes the project's instructions. Messages are compared by
    fingerprint. A batch with reasons to doubt labels goes into the project of audits, even if the
    other project has its messages.
    Raises `InvalidBatch`, `InvalidGuideline` and `LabelStudioUnavailable`.
    """
    items = read_batch(path)
    instructions = _read_guideline(guideline) if guideline else None
    title = AUDIT_TITLE if any(item.reason for item in items) else TITLE
    project = studio.find(title)
    if project is None:
        config = Path(__file__).with_name(_CONFIGS[title]).read_text(encoding="utf-8")
        project = studio.create(title, config)
    if instructions is not None:
        studio.instruct(project, instructions)
    seen = {fingerprint(task.text) for task in studio.tasks(project) if task.text}
    new = []
    for item in items:
        key = fingerprint(item.msg)
        if key not in seen:
            seen.add(key)
            new.append(item)
    scored = _with_scores(new)
    with tqdm(total=len(scored), desc="import", unit=" messages", disable=not scored) as progress:
        for start in range(0, len(scored), _TASKS_AT_ONCE):
            part = scored[start : start + _TASKS_AT_ONCE]
            studio.add(project, [_task(item, title) for item in part])
            progress.update(len(part))
    models = tuple(sorted({item.model for item in scored if item.score is not None}))
    return Pushed(title, len(new), len(items) - len(new), models)


def _read_guideline(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8-sig")
    except OSError as error:
        raise InvalidGuideline(f"{path}: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise InvalidGuideline(f"{path}: not UTF-8; save the guideline in UTF-8") from error


def _with_scores(items: Sequence[Item]) -> list[Item]:
    """Return `items` with their own scores, or else the current model's if there is one.

    A score without a model counts as the current model's, and in an audit as out-of-fold.
    """
    try:
        current, _encoder = find_pair(current_model())
    except ModelNotFound:
        return [_named(item, UNKNOWN) for item in items]
    missing = [item.msg for item in items if item.score is None]
    scores = iter(_score(current, missing) if missing else [])
    return [
        replace(item, score=next(scores), model=current)
        if item.score is None
        else _named(item, current)
        for item in items
    ]


def _score(model: str, texts: Sequence[str]) -> list[float]:
    scorer = load_scorer(model, settings().threads)
    with tqdm(total=len(texts), desc="score", unit=" messages") as progress:
        return scorer.score(texts, progress.update).tolist()


def _named(item: Item, model: str) -> Item:
    return replace(item, model=item.model or (HELD_OUT if item.reason else model))


def _task(item: Item, title: str) -> dict[str, Any]:
    """Return a task in Label Studio's format. Its prediction is the more likely label."""
    data = {"msg_id": item.msg_id, "msg": item.msg}
    if title == AUDIT_TITLE:
        data["reason"] = item.explanation
    if item.score is None:
        return {"data": data}
    choice = "positive" if item.score >= 0.5 else "negative"
    result = {
        "from_name": "label",
        "to_name": "msg",
        "type": "choices",
        "value": {"choices": [choice]},
    }
    prediction = {"model_version": item.model, "score": item.score, "result": [result]}
    return {"data": data, "predictions": [prediction]}
