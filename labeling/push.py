"""Push a batch to Label Studio, with a model's scores as predictions."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from tqdm import tqdm

from feedsieve.errors import FeedsieveError
from feedsieve.scoring.model_store import ModelNotFound, load_scorer
from feedsieve.settings import settings
from feedsieve.text import fingerprint
from labeling.batch import Item, read_batch
from labeling.studio import Studio
from train.data.chosen import Chosen
from train.data.usable_model import usable_model

TITLE = "feedsieve"
HELD_OUT = "held out"  # model version of out-of-fold scores of an audit
UNKNOWN = "unknown"  # model version of scores without a model
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


def project_title(*, is_sample: bool = False, is_audit: bool = False) -> str:
    """Return the name of a project: of the sample or not, for audits or not.

    In an audit, labels are checked again.
    """
    return TITLE + " sample" * is_sample + " audit" * is_audit


def push(studio: Studio, path: Path, data: Chosen, guideline: Path | None = None) -> Pushed:
    """Import the messages of a batch that are new to the project, which is created if need be.

    The `guideline`, a text file, becomes the project's instructions. Messages are compared by
    fingerprint. A batch with reasons to doubt labels goes into the project of audits, even if the
    other project has its messages.
    Raises `InvalidBatch`, `InvalidGuideline` and `LabelStudioUnavailable`.
    """
    items = read_batch(path)
    instructions = _read_guideline(guideline) if guideline else None
    is_audit = any(item.reason for item in items)
    title = project_title(is_sample=data.is_sample, is_audit=is_audit)
    project = studio.find(title)
    if project is None:
        config = Path(__file__).with_name("audit.xml" if is_audit else "config.xml")
        project = studio.create(title, config.read_text(encoding="utf-8"))
    if instructions is not None:
        studio.instruct(project, instructions)
    seen = {fingerprint(task.text) for task in studio.tasks(project) if task.text}
    new = []
    for item in items:
        key = fingerprint(item.msg)
        if key not in seen:
            seen.add(key)
            new.append(item)
    scored = _with_scores(new, data)
    with tqdm(total=len(scored), desc="import", unit=" messages", disable=not scored) as progress:
        for start in range(0, len(scored), _TASKS_AT_ONCE):
            part = scored[start : start + _TASKS_AT_ONCE]
            studio.add(project, [make_task(item, is_audit=is_audit) for item in part])
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


def _with_scores(items: Sequence[Item], data: Chosen) -> list[Item]:
    """Return `items` with their own scores, or else the current model's if there is one.

    A score without a model counts as the current model's, and in an audit as out-of-fold.
    """
    try:
        current = usable_model(data)
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


def make_task(item: Item, *, is_audit: bool) -> dict[str, Any]:
    """Return a task in Label Studio's format. Its prediction is the more likely label.

    The prediction is shown beside the message as text: the same key that chooses a label takes a
    preselected one back.
    """
    data = {"msg_id": item.msg_id, "msg": item.msg}
    if is_audit:
        data["reason"] = f"{item.prediction}\n{item.explanation}"
    else:
        data["prediction"] = item.prediction
    if item.score is None:
        return {"data": data}
    result = {
        "from_name": "label",
        "to_name": "msg",
        "type": "choices",
        "value": {"choices": [item.choice]},
    }
    prediction = {"model_version": item.model, "score": item.score, "result": [result]}
    return {"data": data, "predictions": [prediction]}
