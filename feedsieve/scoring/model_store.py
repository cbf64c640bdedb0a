"""The BentoML model store: pairs of a classifier and its encoder."""

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import bentoml
from bentoml.exceptions import BentoMLException

from feedsieve.errors import FeedsieveError
from feedsieve.scoring.backend_selection import NoCorrectBackend
from feedsieve.scoring.classifier import Classifier, ClassifierDescription
from feedsieve.scoring.encoder import Encoder
from feedsieve.scoring.reference import ReferenceScores
from feedsieve.scoring.scorer import Scorer
from feedsieve.settings import settings

ENCODER = "feedsieve-encoder"
CLASSIFIER = "feedsieve-classifier"


class ModelNotFound(FeedsieveError, BentoMLException):
    """The store has no usable model of that tag; the message names the command that makes one."""


def find_pair(tag: str) -> tuple[str, str]:
    """Return the exact tags of the classifier `tag` and of its encoder.

    Raises ModelNotFound.
    """
    classifier = _get(tag)
    try:
        encoder = ClassifierDescription.read(Path(classifier.path)).encoder_tag
    except (OSError, ValueError) as error:
        raise ModelNotFound(
            f"{classifier.tag} is no classifier of this version of feedsieve; `make train` or "
            f"`python -m train --data LABELED.csv` makes one ({error})"
        ) from error
    return str(classifier.tag), str(_get(encoder).tag)


def load_scorer(tag: str, threads: int = 0, *, cascade: bool = True) -> Scorer:
    """Load the classifier `tag`, from `CLASSIFIER:latest` to an exact version, and its encoder.

    Their outputs are compared with the reference outputs on this CPU. Without `cascade` the encoder
    reads every text.

    Raises ModelNotFound, also for a model that is damaged, was made by another version, or does
    not reproduce its reference outputs.
    """
    classifier_tag, encoder_tag = find_pair(tag)
    folders = folder(encoder_tag), folder(classifier_tag)
    try:
        return load_pair(*folders, classifier_tag, threads, cascade=cascade)
    except NoCorrectBackend as error:
        raise ModelNotFound(f"{classifier_tag} with {encoder_tag} is rejected: {error}") from error
    except Exception as error:  # onnxruntime, tokenizers and LightGBM have many of their own
        raise ModelNotFound(
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

    `model` is the classifier's tag. Raises NoCorrectBackend, and OSError, ValueError or a library's
    own error for a damaged file.
    """
    classifier = Classifier.load(classifier_folder)
    expected = ReferenceScores.read_if_present(classifier_folder)
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
    """Return the folder of a model's files. Raises ModelNotFound."""
    return Path(_get(tag).path)


def labels_of(tag: str) -> dict[str, str]:
    """Return the labels that a model has in the store. Raises ModelNotFound."""
    return dict(_get(tag).info.labels)


def has(tag: str) -> bool:
    """Return whether the store has the model."""
    with suppress(ModelNotFound):
        return bool(_get(tag))
    return False


def add(folder: Path) -> None:
    """Add a copy of a model's folder, whose file model.yaml has its tag, unless it is there."""
    model = bentoml.Model.from_path(folder)
    if not has(str(model.tag)):
        model.save()


@contextmanager
def new_model(name: str, labels: dict[str, str] | None = None) -> Iterator[tuple[str, Path]]:
    """Yield the tag and the folder of a new model, which is stored when the block ends."""
    with bentoml.models.create(name, labels=labels) as model:
        yield str(model.tag), Path(model.path)


def _get(tag: str) -> bentoml.Model:
    try:
        return bentoml.models.get(tag)
    except (BentoMLException, ValueError) as error:  # absent; not a tag
        if found := _beside_the_bento(tag):
            return found
        raise ModelNotFound(
            f"the model store has no {tag}. `make train` makes a model of the sample corpus; "
            "`python -m train --data LABELED.csv` makes one of your own messages; "
            "`bentoml models import /PATH/TO/FILE` adds an exported one, with its encoder"
        ) from error


def _beside_the_bento(tag: str) -> bentoml.Model | None:
    """Return the model of an exact tag that is not in the store where BentoML looks.

    While a Bento with models is served, BentoML looks into that Bento only; other models are in
    BENTOML_HOME. For commands in a container it looks there; the Bento's are in BENTO_PATH.
    """
    homes = settings().bentoml_home, settings().bento_path
    for home in filter(None, homes):
        with suppress(BentoMLException, ValueError, OSError):  # absent, incomplete; not a tag
            return bentoml.Model.from_path(home / "models" / bentoml.Tag.from_taglike(tag).path())
    return None
