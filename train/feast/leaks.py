"""Labels that embeddings of a fine-tuned encoder leak: those that it was trained on."""

import numpy as np

from train.data.dataset import Dataset
from train.data.near_duplicates import near_duplicate_groups
from train.data.validation import shortages
from train.feast.feature_store import FeatureStore, FeaturesUnavailable
from train.tracking import data_versions
from train.tracking.data_versions import DataVersionNotFound


def without_leaks(data: Dataset, features: FeatureStore) -> Dataset:
    """Return the part of `data` whose labels the encoder of `features` has not seen.

    Near-duplicates of what it was trained on are left out, too. Raises FeaturesUnavailable if that
    is unknown or leaves too little, ValueError for too few messages to split, and
    TrackingUnavailable.
    """
    if not features.is_finetuned:
        return data
    tag = features.encoder_tag
    other = "`python -m train.features --encoder wheel` computes them with another encoder"
    try:
        seen = data_versions.of_encoder(tag).texts
    except DataVersionNotFound as error:
        raise FeaturesUnavailable(
            f"the features in {features.folder} may leak labels: they come from {tag}, which was"
            f" fine-tuned, and MLflow does not know on which labels; {other}"
        ) from error
    groups = near_duplicate_groups([*seen, *data.frame["msg"]], progress=False)
    is_leaked = np.isin(groups[len(seen) :], groups[: len(seen)])
    frame = data.frame[~is_leaked].reset_index(drop=True)
    count = f"{int(is_leaked.sum()):,} of {len(is_leaked):,} labels"
    if problems := shortages(frame):
        raise FeaturesUnavailable(
            f"{tag} was fine-tuned on {count}; without them: {'; '.join(problems)}; {other}"
        )
    print(f"left out {count}: {tag} was fine-tuned on them or on near-duplicates")
    return Dataset.of(
        frame, name=data.name, unlabelled=data.unlabelled, is_of_sample=data.is_of_sample
    )
