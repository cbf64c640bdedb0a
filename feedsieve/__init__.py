"""The runtime: text in, score out; the message store; the feed. Needs no training library."""

import os
from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from feedsieve.message import Message
    from feedsieve.scoring.scorer import Scorer
    from feedsieve.store.store import MessageStore

__all__ = ["Message", "MessageStore", "Scorer", "__version__"]
__version__ = "0.1.0"

_MODULES = {  # imported on first use: a model's libraries take a second
    "Message": "feedsieve.message",
    "MessageStore": "feedsieve.store.store",
    "Scorer": "feedsieve.scoring.scorer",
}

# Since version 1.32 onnxruntime sends usage data to its makers, unless this is set before import.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")


def __getattr__(name: str) -> object:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_MODULES[name]), name)
