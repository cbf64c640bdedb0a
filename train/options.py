"""The options of a training."""

from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from export.names import public_name
from train.behaviour.suite import Suite
from train.classifier.parameters import PARAMETERS
from train.encoder.layer_choice import DEFAULT_LAYERS

DEFAULT_ENCODER = "wheel"


@dataclass(frozen=True)
class Options:
    """The arguments of `python -m train`."""

    data: Path | None  # without it, the labels in the store are the data
    db: str | None  # the message store
    encoder: str
    finetune: bool
    behave: Suite | None  # to test the model by
    report: Path
    seed: int
    track: bool  # in MLflow
    features: Path | None = None  # a Feast repository
    cluster: str | None = None  # of Dask
    is_of_sample: bool = False  # chosen where there was no own data
    as_of: datetime | str | None = None  # train on the data of a time, or of this fingerprint
    distil: str | None = None  # `train.encoder.layer_choice.choose_layers`

    @property
    def reproducing(self) -> list[str]:
        """The arguments that determine the model, without private paths and addresses."""
        if self.features:
            chosen = ["--features"]
        else:
            chosen = ["--encoder", public_name(self.encoder)]
            chosen += ["--finetune"] if self.finetune else []
            chosen += ["--distil", self.distil] if self.distil else []
        if self.cluster:
            address = self.cluster if "://" not in self.cluster else "tcp://HOST:PORT"
            chosen += ["--cluster", address]
        return [*chosen, "--seed", str(self.seed)]

    @property
    def parameters(self) -> dict[str, Any]:
        """The parameters of the MLflow run."""
        parameters = PARAMETERS["finetuned" if self.finetune else "frozen"]
        return {
            "encoder": public_name(self.encoder),
            "finetune": self.finetune,
            "distil": self.distil or f"{DEFAULT_LAYERS} at most",
            "features": self.features is not None,
            "cluster": self.cluster is not None,
            "behave": self.behave.name if self.behave else None,
            "seed": self.seed,
            **{f"lightgbm.{name}": value for name, value in parameters.items()},
        }
