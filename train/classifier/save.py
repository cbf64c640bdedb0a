"""Saves the classifier, evaluated on the test part, with a model card."""

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from tqdm import tqdm

from export.reference import write_reference_scores
from feedsieve.scoring import model_store
from feedsieve.scoring.classifier import Classifier, ClassifierDescription
from feedsieve.scoring.features import Features
from feedsieve.scoring.scorer import Scorer
from train.behaviour import checks
from train.behaviour.outcome import Outcome
from train.behaviour.suite import Suite
from train.classifier.boosting import Fitted
from train.data.dataset import Dataset
from train.data.usable_model import SAMPLE_LABELS
from train.encoder.fit_encoder import FittedEncoder
from train.evaluation.judges import judges, suffix
from train.evaluation.metrics import evaluate
from train.evaluation.slices import by_slice, precisions_at
from train.options import Options
from train.report import model_card
from train.report.model_card import Card, Data, installed_versions


@dataclass(frozen=True)
class SavedModel:
    """A pair of models in the model store, and its performance on the test part."""

    scorer: Scorer
    test_scores: np.ndarray
    metrics: dict[str, Any]  # the content of metrics.json
    card: Card


def save_classifier(
    options: Options,
    data: Dataset,
    description: Data,
    encoder: FittedEncoder,
    features: Features,
    fitted: Fitted,
) -> SavedModel:
    """Save the classifier, with test metrics, and a card for each of the two models.

    The test metrics are those of the saved files, loaded as the service loads them.
    """
    classifier = ClassifierDescription(
        encoder_tag=encoder.tag,
        threshold=fitted.threshold,
        start=fitted.start,
        calibration=fitted.calibration,
        cascade=fitted.cascade,
        features=features.blocks,
        metrics={},
        data_fingerprint=description.fingerprint,
    )
    runtime = encoder.embedder.encoder
    texts = data.test_texts
    labels = SAMPLE_LABELS if data.is_of_sample else None
    with model_store.new_model(model_store.CLASSIFIER, labels) as (tag, folder):
        Classifier(fitted.booster, features, classifier).save(folder)
        if runtime.reference:  # encoders of earlier versions have none
            write_reference_scores(runtime.reference, folder)
        scorer = Scorer(runtime, Classifier.load(folder), tag)
        with tqdm(total=len(texts), desc="test", unit="message") as progress:
            scores = scorer.score(texts, progress.update)
        metrics: dict[str, Any] = {
            **_evaluate(data, scores, fitted.threshold),
            "validation": fitted.validation,
            "threshold": fitted.threshold,
            "rounds": fitted.booster.num_trees(),
            "features": features.blocks,
            **encoder.metrics,
            "encoder_tag": encoder.tag,
            "classifier_tag": tag,
            "seed": options.seed,
        }
        replace(classifier, metrics=metrics).write(folder)
        card = _card(options, data, description, scorer, scores, metrics)
        model_card.write(folder, card)
        if not encoder.features:  # otherwise the encoder has a card from an earlier training
            model_card.write(model_store.folder(encoder.tag), card)
    return SavedModel(scorer, scores, metrics, card)


def _evaluate(data: Dataset, scores: np.ndarray, threshold: float) -> dict[str, Any]:
    """Return the metrics of the test part, by each kind of label that the data has."""
    found = {}
    for judge, labels in judges(data.parts.test).items():
        found[f"test{suffix(judge)}"] = evaluate(labels, scores, threshold)
        found[f"ranking{suffix(judge)}"] = precisions_at(labels, scores)
    return found


def _card(
    options: Options,
    data: Dataset,
    description: Data,
    scorer: Scorer,
    scores: np.ndarray,
    metrics: dict[str, Any],
) -> Card:
    encoder = scorer.encoder.description
    return Card(
        metrics,
        data=description,
        source=encoder.source,
        max_tokens=encoder.max_tokens,
        slices=by_slice(data.test_texts, data.test_labels, scores, scorer.threshold),
        precision_at=metrics["ranking"],
        behaviour=_test_behaviour(scorer, options.behave) if options.behave else None,
        versions=installed_versions(),
        arguments=options.reproducing,
    )


def _test_behaviour(scorer: Scorer, suite: Suite) -> Outcome:
    with tqdm(total=len(suite.texts), desc="behave", unit="message") as progress:
        return checks.run(scorer, suite, progress.update)
