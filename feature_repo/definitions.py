"""Feast definitions: embeddings and handcrafted features of messages, and copies of texts.

`python -m train.features` writes the files of the views and applies the definitions.
"""

import json
from pathlib import Path

from feast import Entity, FeatureView, Field, FileSource, ValueType
from feast.types import Array, Float32, Float64, Int64, String

from feedsieve.scoring.handcrafted import HANDCRAFTED

# The encoder of the embeddings, and the folder of each view's Parquet files.
CURRENT = json.loads((Path(__file__).parent / ".feast" / "current.json").read_text("utf-8"))


def _source(view: str) -> FileSource:
    """Return the files of a view; of rows with equal times the one computed last counts."""
    return FileSource(
        name=view,
        path=CURRENT["folders"][view],
        timestamp_field="event_time",
        created_timestamp_column="computed_at",
    )


message = Entity(
    name="message",
    join_keys=["message_id"],
    value_type=ValueType.STRING,
    description="A message, by its identifier in the message store",
)

text = Entity(
    name="text",
    join_keys=["fingerprint"],
    value_type=ValueType.STRING,
    description="A text, by its fingerprint, which is equal for all messages with this text",
)

message_embedding = FeatureView(
    name="message_embedding",
    description="The embedding of a message",
    entities=[message],
    ttl=None,
    schema=[
        Field(name="embedding", dtype=Array(Float32)),
        Field(name="encoder", dtype=String, description="its tag in the BentoML model store"),
        Field(name="embedded_text", dtype=String, description="the fingerprint of the text"),
    ],
    source=_source("message_embedding"),
    tags={"encoder": CURRENT["encoder"], "finetuned": str(CURRENT["finetuned"]).lower()},
)

message_traits = FeatureView(
    name="message_traits",
    description="Handcrafted features of a message (feedsieve/scoring/handcrafted.py)",
    entities=[message],
    ttl=None,
    schema=[Field(name=name, dtype=Float64) for name in HANDCRAFTED],
    source=_source("message_traits"),
)

text_copies = FeatureView(
    name="text_copies",
    description="Number of messages with the same text up to that time, this one included",
    entities=[text],
    ttl=None,
    schema=[Field(name="copies so far", dtype=Int64)],
    source=_source("text_copies"),
    online=False,  # the message store has the current number
)
