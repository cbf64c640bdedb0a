"""Push: a batch into Label Studio, each message once, with what a model thinks of it."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from tqdm import tqdm

from feedsieve.models import NoModel, find_pair, load_scorer
from feedsieve.settings import settings
from feedsieve.text import fingerprint
from labeling.batch import Item, read_batch
from labeling.studio import Studio

TITLE = "feedsieve"
AUDIT_TITLE = "feedsieve audit"  # messages that have a label, which is looked at again
HELD_OUT = "held out"  # the model version of an audit's scores, by models that saw no such label
UNKNOWN = "unknown"  # the model version of scores that name no model, where there is none
_CONFIGS = {TITLE: "config.xml", AUDIT_TITLE: "audit.xml"}
_TASKS_AT_ONCE = 500


@dataclass(frozen=True)
class Pushed:
    """What became of a batch."""

    title: str  # of the project
    added: int
    known: int  # were in the project already, or earlier in the batch
    models: tuple[str, ...]  # whose predictions are shown


def push(studio: Studio, path: Path) -> Pushed:
    """Import the messages of a batch that their project does not have yet; make the project.

    A message is known by its text's fingerprint. One that comes with a reason to doubt its label
    goes into the project of audits, where it may be although the first project has it.
    Raises `BadBatch` and `StudioUnavailable`.
    """
    items = read_batch(path)
    title = AUDIT_TITLE if any(item.reason for item in items) else TITLE
    project = studio.find(title)
    if project is None:
        config = Path(__file__).with_name(_CONFIGS[title]).read_text(encoding="utf-8")
        project = studio.create(title, config)
    seen = {fingerprint(task.text) for task in studio.tasks(project) if task.text}
    new = []
    for item in items:
        mark = fingerprint(item.msg)
        if mark not in seen:
            seen.add(mark)
            new.append(item)
    scored = _with_scores(new)
    with tqdm(total=len(scored), desc="import", unit=" messages", disable=not scored) as progress:
        for start in range(0, len(scored), _TASKS_AT_ONCE):
            part = scored[start : start + _TASKS_AT_ONCE]
            studio.add(project, [_task(item, title) for item in part])
            progress.update(len(part))
    models = tuple(sorted({item.model for item in scored if item.score is not None}))
    return Pushed(title, len(new), len(items) - len(new), models)


def _with_scores(items: Sequence[Item]) -> list[Item]:
    """Return `items` with scores: their own, or else the current model's if there is one.

    A score that names no model is taken for the current model's, but that of an audit for one of
    models that had not seen the message.
    """
    try:
        current, _encoder = find_pair(settings().model)
    except NoModel:
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
    """Return a task whose prediction, if it has one, is the likelier label."""
    data = {"msg_id": item.msg_id, "msg": item.msg}
    if title == AUDIT_TITLE:
        data["reason"] = item.reason
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
