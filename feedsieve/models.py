"""The BentoML model store: the pair of models that makes a scorer."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import bentoml
from bentoml.exceptions import BentoMLException

from feedsieve.backend_selection import NoBackend
from feedsieve.classifier import Classifier, ClassifierDescription
from feedsieve.encoder import Encoder
from feedsieve.reference import ReferenceScores
from feedsieve.scorer import Scorer

ENCODER = "feedsieve-encoder"
CLASSIFIER = "feedsieve-classifier"


class NoModel(BentoMLException):
    """The store has no such model; the message says which command makes one."""


def find_pair(tag: str) -> tuple[str, str]:
    """Return the exact tags of the classifier that `tag` names and of its encoder.

    Raises `NoModel`.
    """
    classifier = _get(tag)
    try:
        encoder = ClassifierDescription.read(Path(classifier.path)).encoder_tag
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise NoModel(
            f"{classifier.tag} is no classifier of this version of feedsieve; `make train` or "
            f"`python -m train --data LABELED.csv` makes one ({error})"
        ) from error
    return str(classifier.tag), str(_get(encoder).tag)


def load_scorer(tag: str, threads: int = 0, *, cascade: bool = True) -> Scorer:
    """Load the pair that `tag` names, from `CLASSIFIER:latest` to an exact version.

    The pair is compared with its reference outputs on this CPU. Without `cascade` the encoder
    reads every text.

    Raises `NoModel`, also for a model that is damaged, was made by another version, or gives other
    outputs than it should.
    """
    classifier_tag, encoder_tag = find_pair(tag)
    places = folder(encoder_tag), folder(classifier_tag)
    try:
        return load_pair(*places, classifier_tag, threads, cascade=cascade)
    except NoBackend as error:
        raise NoModel(f"{classifier_tag} with {encoder_tag} is refused: {error}") from error
    except Exception as error:  # onnxruntime, tokenizers and LightGBM have many of their own
        raise NoModel(
            f"{classifier_tag} with {encoder_tag} cannot be loaded, it is damaged or was made by "
            f"another version of feedsieve; `make train` or `python -m train` makes one ({error})"
        ) from error


def load_pair(
    encoder_folder: Path,
    classifier_folder: Path,
    model: str,
    threads: int = 0,
    *,
    cascade: bool = True,
) -> Scorer:
    """Load a pair from its folders, with the fastest backend that gives its reference scores.

    `model` is the classifier's tag. Raises NoBackend, and whatever loading a damaged file raises.
    """
    classifier = Classifier.load(classifier_folder)
    expected = ReferenceScores.read(classifier_folder)
    excluded: dict[str, str] = {}
    while True:
        encoder = Encoder(encoder_folder, threads, excluded=excluded)
        if expected is None or encoder.reference is None:
            break
        scores = classifier.score(encoder.reference.texts, encoder.encode_reference())
        broken = expected.broken(scores)
        if not broken:
            break
        excluded[encoder.backend.spec.name] = broken
    return Scorer(encoder, classifier, model, cascade=cascade)


def folder(tag: str) -> Path:
    """Return where the files of a model are. Raises `NoModel`."""
    return Path(_get(tag).path)


@contextmanager
def new_model(name: str) -> Iterator[tuple[str, Path]]:
    """Yield the tag and the folder of a new model, which is in the store once the block ends."""
    with bentoml.models.create(name) as model:
        yield str(model.tag), Path(model.path)


def _get(tag: str) -> bentoml.Model:
    try:
        return bentoml.models.get(tag)
    except (BentoMLException, ValueError) as error:  # absent; no tag at all
        raise NoModel(
            f"the model store has no {tag}. `make train` makes a model of the sample corpus; "
            "`python -m train --data LABELED.csv` makes one of your own messages"
        ) from error
