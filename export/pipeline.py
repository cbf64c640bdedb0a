"""Export pipeline: source to checked ONNX encoders, and into the model store."""

import json
import logging
import shutil
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from tqdm import tqdm

from export import check, onnx
from export.reference import (
    PyTorchEncoder,
    reference_embeddings,
    reference_of_file,
    write_reference_scores,
)
from export.sources import Source
from feedsieve.scoring import model_store
from feedsieve.scoring.backend_selection import NoCorrectBackend
from feedsieve.scoring.encoder import (
    DESCRIPTION_FILE,
    MODEL_FILE,
    TOKENIZER_FILE,
    Encoder,
    EncoderDescription,
)
from feedsieve.scoring.reference import REFERENCE_FILE, ReferenceEmbeddings, ReferenceScores

_log = logging.getLogger("feedsieve")

CALIBRATION_MESSAGES = 128  # of all lengths


class Exported(dict[str, Encoder]):
    """The loaded encoders by precision: "fp32" and, unless rejected, "int8"."""

    int8_rejected: str | None = None  # why there is no encoder in 8 bits

    @property
    def fastest(self) -> Encoder:
        """The int8 encoder, or the fp32 one if int8 was rejected."""
        return self.get("int8", self["fp32"])


def export_encoder(
    source: Source, folder: Path, texts: Sequence[str], threads: int = 0
) -> Exported:
    """Write `folder/fp32` and `folder/int8`, compare both with PyTorch on `texts`, load both.

    An int8 encoder that differs too much, or that no backend here runs correctly, is left out with
    a warning. Raises ExportError or NoCorrectBackend for the fp32 encoder, and ExportError if there
    are no texts.
    """
    if not texts:
        raise check.ExportError("an export is checked on messages, and there are none")
    model = onnx.pooled(source)
    pytorch = PyTorchEncoder(model)
    plain = folder / "plain.onnx"
    encoders = Exported()
    with tqdm(total=5, desc="export", unit="step") as progress:
        onnx.write_plain(model, plain)
        progress.update()
        fp32 = _prepare(source, folder / "fp32", "fp32")
        onnx.write_fp32(plain, model, fp32 / MODEL_FILE)
        progress.update()
        encoders["fp32"] = _checked(fp32, pytorch, texts, threads)
        progress.update()
        int8 = _prepare(source, folder / "int8", "int8")
        sample = check.of_many_lengths(texts, CALIBRATION_MESSAGES)
        onnx.write_int8(plain, encoders["fp32"].tokenize(sample), int8 / MODEL_FILE)
        plain.unlink()
        progress.update()
        try:
            encoders["int8"] = _checked(int8, pytorch, texts, threads)
        except (check.ExportError, NoCorrectBackend) as error:
            encoders.int8_rejected = str(error)
            _log.warning("int8 is rejected, fp32 is used: %s", error)
        progress.update()
    return encoders


def save_encoder(folder: Path) -> str:
    """Copy an exported encoder into the model store. Return its tag."""
    with model_store.new_model(model_store.ENCODER) as (tag, place):
        for name in (MODEL_FILE, TOKENIZER_FILE, DESCRIPTION_FILE, REFERENCE_FILE):
            shutil.copyfile(folder / name, place / name)
    return tag


def add_reference(tag: str, threads: int = 0) -> None:
    """Add reference outputs to a pair of models made by an earlier version.

    `tag` is the classifier's. The embeddings are computed from the ONNX file as it defines them,
    the scores by the classifier. Existing reference outputs stay. Raises ModelNotFound.
    """
    classifier_tag, encoder_tag = model_store.find_pair(tag)
    place = model_store.folder(encoder_tag)
    reference = ReferenceEmbeddings.read_if_present(place)
    if reference is None:
        reference = reference_of_file(place)
        reference.write(place)
    folder = model_store.folder(classifier_tag)
    if ReferenceScores.read_if_present(folder) is None:
        write_reference_scores(reference, folder)
    model_store.load_scorer(classifier_tag, threads)  # raises if no backend gives these outputs


def describe(encoder: Encoder) -> str:
    """Return the agreement with PyTorch on one line."""
    figures = encoder.description.check
    return (
        f"{encoder.description.precision} against PyTorch on {figures['messages']} messages: "
        f"largest difference {figures['largest_difference']:.2g}, "
        f"cosine {figures['mean_cosine']:.5f} on average, {figures['lowest_cosine']:.5f} at least; "
        f"runs on {encoder.selection.chosen.backend}"
    )


def _prepare(source: Source, folder: Path, precision: str) -> Path:
    """Create the folder of one encoder, with everything but the ONNX file."""
    folder.mkdir(parents=True)
    _write_tokenizer(source, folder / TOKENIZER_FILE)
    description = EncoderDescription(
        source=source.name,
        pooling=source.pooling,
        prefix=source.prefix,
        max_tokens=source.max_tokens,
        dimension=source.model.config.hidden_size,
        precision=precision,
        check={},
    )
    description.write(folder)
    return folder


def _write_tokenizer(source: Source, path: Path) -> None:
    """Write the tokenizer without padding and truncation, which the runtime sets."""
    tokenizer = source.tokenizer.backend_tokenizer
    tokenizer.no_padding()
    tokenizer.no_truncation()
    settings = json.loads(tokenizer.to_str())
    path.write_text(json.dumps(settings, ensure_ascii=False), encoding="utf-8")


def _checked(folder: Path, pytorch: PyTorchEncoder, texts: Sequence[str], threads: int) -> Encoder:
    reference_embeddings(pytorch, folder).write(folder)
    encoder = Encoder(folder, threads)
    encoder.description = replace(encoder.description, check=check.check(pytorch, encoder, texts))
    encoder.description.write(folder)
    return encoder
