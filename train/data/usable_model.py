"""The model for labelling and `make serve`: one of the sample serves the sample only."""

from feedsieve.registry import current_model
from feedsieve.scoring.model_store import ModelNotFound, find_pair, labels_of
from feedsieve.settings import settings
from train.data.chosen import Chosen

SAMPLE_LABELS = {"data": "sample"}  # of the model in BentoML's store


class ModelOfSample(ModelNotFound):
    """The model was trained on the sample; the message says how to use it all the same."""


def usable_model(data: Chosen) -> str:
    """Return the exact tag of the classifier in use: FEEDSIEVE_MODEL, the champion or the newest.

    Raises ModelNotFound, and ModelOfSample if it was trained on the sample and `data` is not the
    sample, unless FEEDSIEVE_MODEL names it.
    """
    tag, _encoder = find_pair(current_model())
    is_named = "model" in settings().model_fields_set
    if data.is_sample or is_named or not _is_of_sample(tag):
        return tag
    raise ModelOfSample(
        f"{tag} was trained on the sample chat, so it is not used on your messages; train on your"
        f" labels with `make train`, or use it all the same with FEEDSIEVE_MODEL={tag}"
    )


def _is_of_sample(tag: str) -> bool:
    return SAMPLE_LABELS.items() <= labels_of(tag).items()
