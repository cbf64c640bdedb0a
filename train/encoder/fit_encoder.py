"""The encoder that will serve: fine-tuned if requested, exported, and saved in the model store."""

import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from export import pipeline as export
from export import sources
from export.sources import Source
from feedsieve.scoring import model_store
from feedsieve.scoring.encoder import Encoder
from feedsieve.settings import settings
from train.compute.base import Compute
from train.data.dataset import Dataset
from train.encoder.distil import Student, distil, transfer_set
from train.encoder.embedder import Embedder
from train.encoder.finetune import FineTuned, finetune
from train.encoder.layer_choice import choose_layers
from train.encoder.precision import Comparison, Rejected, compare
from train.feast.feature_store import FeatureStore
from train.options import Options


@dataclass(frozen=True)
class FittedEncoder:
    """A saved encoder, and how it was made."""

    tag: str  # in the model store
    embedder: Embedder
    metrics: dict[str, Any]  # entries of metrics.json
    features: FeatureStore | None = None  # where its embeddings come from, if it was not fitted
    tuned: FineTuned | None = None
    student: Student | None = None

    def remove_checkpoints(self) -> None:
        """Remove all that is needed to resume, once the classifier is saved too."""
        if self.tuned:
            self.tuned.remove_checkpoints()
        if self.student:
            self.student.remove_checkpoints()


def fit_encoder(options: Options, data: Dataset, compute: Compute) -> FittedEncoder:
    """Return the encoder that `options` describe.

    A student is distilled on the training texts and the unlabelled ones. Raises UnknownEncoder,
    InvalidWeights, InvalidLayers, ExportError, AlreadyRunning, CheckpointError,
    FeaturesUnavailable, ModelNotFound, StoreUnavailable and ClusterUnavailable.
    """
    if options.features:
        return _load_from_features(FeatureStore(options.features), data, compute)
    source = sources.load(options.encoder)
    if not options.finetune:
        return _export(source, None, data, options.seed, compute)
    student = _distil(source, options, data)
    tuned = finetune(
        source,
        data.texts,
        data.labels,
        data.groups,
        options.seed,
        settings().cache,
        student.source if student else None,
    )
    exported = _export(tuned.source, tuned, data, options.seed, compute)
    metrics = exported.metrics | {"finetuning": tuned.history}
    if student:
        metrics["distillation"] = student.metrics
    return FittedEncoder(exported.tag, exported.embedder, metrics, tuned=tuned, student=student)


def _distil(teacher: Source, options: Options, data: Dataset) -> Student | None:
    """Return the student with the requested layers, or None if these are all of the teacher's."""
    count = teacher.model.config.num_hidden_layers
    kept = choose_layers(options.distil, count)
    if len(kept) == count:
        return None
    texts = transfer_set(data.texts, data.unlabelled, data.test_texts, options.seed)
    return distil(teacher, kept, texts, options.seed, settings().cache)


def _export(
    source: Source, tuned: FineTuned | None, data: Dataset, seed: int, compute: Compute
) -> FittedEncoder:
    """Export `source`, choose its precision on the training part, and save it."""
    with tempfile.TemporaryDirectory(prefix="feedsieve-train-") as folder:
        encoders = export.export_encoder(source, Path(folder), data.texts, settings().threads)
        for exported in encoders.values():
            print(export.describe(exported))
        embedders = {
            name: Embedder(compute.encoder(exported, Path(folder) / name))
            for name, exported in encoders.items()
        }
        comparison: Comparison | Rejected
        if encoders.int8_rejected:
            comparison = Rejected(f"int8 is rejected: {encoders.int8_rejected}")
        else:
            comparison = compare(embedders, data.parts.train, seed, tuned, compute)
        print(comparison)
        tag = export.save_encoder(Path(folder) / comparison.chosen)
    metrics = {
        "precision": comparison.as_table(),
        "export": {name: exported.description.check for name, exported in encoders.items()},
        "backend": encoders[comparison.chosen].selection.figures(),
    }
    return FittedEncoder(tag, embedders[comparison.chosen], metrics)


def _load_from_features(features: FeatureStore, data: Dataset, compute: Compute) -> FittedEncoder:
    """Load the encoder of Feast's embeddings, with those of the training part cached."""
    tag = features.encoder_tag
    folder = model_store.folder(tag)
    embedder = Embedder(compute.encoder(Encoder(folder, settings().threads), folder))
    embeddings = features.embeddings_as_of_labels(data.parts.train)
    embedder.add(embeddings)
    print(f"{len(embeddings):,} embeddings by {tag} from {features.folder}")
    description = embedder.encoder.description
    metrics = {
        "precision": {"chosen": description.precision, "reason": "that of the features"},
        "export": {description.precision: description.check},
    }
    return FittedEncoder(tag, embedder, metrics, features=features)
