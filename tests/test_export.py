import random
import re
from contextlib import suppress
from pathlib import Path
from threading import get_ident

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto
from tiny_bert import HIDDEN, POSITIONS, WORDS, save_tiny_bert
from transformers import AutoModel, AutoTokenizer

from export import sources
from export.check import ExportError, check, of_many_lengths
from export.onnx import pooled
from export.pipeline import describe, export_encoder
from export.reference import PyTorchEncoder
from feedsieve.scoring import backends
from feedsieve.scoring.backend_selection import NoCorrectBackend
from feedsieve.scoring.encoder import MODEL_FILE, Encoder, EncoderDescription
from feedsieve.text import plain


def sentences(count: int, seed: int = 0) -> list[str]:
    rng = random.Random(seed)
    words = [*WORDS, "центр", "море", "ok", "1200", "γα", "☂"]
    return [" ".join(rng.choices(words, k=rng.randint(1, 20))) for _ in range(count)]


TEXTS = [*sentences(90), "", "?", "сдам квартиру " * 100]


def embeddings_by_transformers(folder: Path, texts: list[str], prefix: str = "") -> np.ndarray:
    """Return unit-length mean-pooled embeddings as in the documentation of `transformers`."""
    model, tokenizer = (
        AutoModel.from_pretrained(folder).eval(),
        AutoTokenizer.from_pretrained(folder),
    )
    inputs = tokenizer(
        [prefix + plain(text) for text in texts],
        padding=True,
        truncation=True,
        max_length=POSITIONS,
        return_tensors="pt",
    )
    with torch.inference_mode():
        hidden = model(**inputs).last_hidden_state.numpy()
    mask = inputs["attention_mask"].numpy()[:, :, None]
    mean = (hidden * mask).sum(axis=1) / mask.sum(axis=1)
    return mean / np.linalg.norm(mean, axis=1, keepdims=True)


@pytest.fixture(scope="module")
def tiny(tmp_path_factory) -> Path:
    return save_tiny_bert(tmp_path_factory.mktemp("mean") / "tiny")


@pytest.fixture(scope="module")
def exported(tiny, tmp_path_factory) -> dict[str, Encoder]:
    return export_encoder(sources.load(str(tiny)), tmp_path_factory.mktemp("mean-onnx"), TEXTS)


@pytest.fixture(scope="module")
def encoder(exported) -> Encoder:
    return exported["fp32"]


def correct_encoder(folder: Path, precision: str, library: str, threads: int = 1) -> Encoder:
    """Return the encoder on the first backend of `library` that is correct on this CPU."""
    for spec in backends.BACKENDS[precision]:
        if spec.library == library:
            with suppress(NoCorrectBackend):  # such as int8 products that saturate without VNNI
                return Encoder(folder, threads, spec.name)
    raise AssertionError(f"no backend of {library} is correct")


class TestEncoder:
    def test_embeddings_equal_transformers(self, tiny, encoder):
        expected = embeddings_by_transformers(tiny, TEXTS)
        embeddings = encoder.encode(TEXTS)
        assert embeddings.dtype == np.float32
        assert embeddings.shape == (len(TEXTS), HIDDEN)
        assert (expected @ expected.T).min() < 0.8  # the texts do differ
        assert embeddings == pytest.approx(expected, abs=1e-5)

    @pytest.mark.parametrize("count", [1, 2, 17])
    def test_batch_size_does_not_change_embeddings(self, tiny, encoder, count):
        texts = TEXTS[-count:]
        assert encoder.encode(texts) == pytest.approx(
            embeddings_by_transformers(tiny, texts), abs=1e-5
        )

    def test_embeddings_keep_the_order_of_texts(self, encoder, monkeypatch):
        expected = np.concatenate([encoder.encode([text]) for text in TEXTS])
        monkeypatch.setattr("feedsieve.scoring.padding.TOKENS_PER_BATCH", 256)
        monkeypatch.setattr("feedsieve.scoring.encoder.TEXTS_PER_TOKENIZATION", 40)
        again = Encoder(encoder.folder, threads=1)
        assert again.encode(TEXTS) == pytest.approx(expected, abs=1e-5)

    @pytest.mark.parametrize("precision", ["fp32", "int8"])
    def test_backends_agree(self, exported, precision):
        folder = exported[precision].folder
        openvino, onnxruntime = (
            correct_encoder(folder, precision, library).encode(TEXTS)
            for library in ("openvino", "onnxruntime")
        )
        allowed = {"fp32": 1e-5, "int8": 0.05}[precision]  # a rounded value may fall to either side
        assert np.abs(openvino - onnxruntime).max() < allowed
        assert (openvino * onnxruntime).sum(axis=1).min() > 0.999

    @pytest.mark.parametrize("library", ["openvino", "onnxruntime"])
    def test_threads_do_not_change_embeddings(self, exported, library):
        folder = exported["int8"].folder
        one, three = (
            correct_encoder(folder, "int8", library, threads).encode(TEXTS) for threads in (1, 3)
        )
        assert one.tolist() == three.tolist()

    def test_all_submitted_is_called_before_the_last_result(self, encoder, monkeypatch):
        monkeypatch.setattr("feedsieve.scoring.encoder.TEXTS_PER_TOKENIZATION", 40)
        calls = []
        submitted = []
        submit = encoder.submit
        monkeypatch.setattr(
            encoder, "submit", lambda ids: submitted.append(len(ids)) or submit(ids)
        )
        rows, was_called = [], []
        for batch, _embeddings in encoder.embed(TEXTS, lambda: calls.append(sum(submitted))):
            rows += batch
            was_called.append(bool(calls))
        assert calls == [len(TEXTS)]
        assert was_called[-1] and not was_called[0]
        assert sorted(rows) == list(range(len(TEXTS)))
        assert not list(encoder.embed([], lambda: calls.append(0)))
        assert len(calls) == 1

    @pytest.mark.parametrize(("eager", "ahead"), [(True, 5), (False, 2)])
    def test_batches_submitted_ahead(self, exported, eager, ahead):
        encoder = Encoder(exported["int8"].folder, threads=2)
        submitted = []
        submit = encoder.submit
        encoder.submit = lambda ids: submitted.append(ids) or submit(ids)
        next(encoder.embed([unit * 40 for unit in TEXTS[:90]], eager=eager))
        assert len(submitted) == ahead

    def test_backend_is_warmed_up_in_one_thread(self, exported, monkeypatch):
        submitted_in = []
        submit = backends.OpenVino.submit
        monkeypatch.setattr(
            backends.OpenVino,
            "submit",
            lambda backend, inputs: submitted_in.append(get_ident()) or submit(backend, inputs),
        )
        [spec] = [one for one in backends.BACKENDS["int8"] if one.name == "openvino-int8"]
        backends.open_backend(spec, exported["int8"].folder / MODEL_FILE, threads=4)
        assert submitted_in == [get_ident()]

    @pytest.mark.parametrize("precision", ["fp32", "int8"])
    def test_embeddings_do_not_depend_on_the_batch(self, exported, precision):
        encoder = exported[precision]
        together = encoder.encode(TEXTS)
        assert together.tolist() == encoder.encode(TEXTS[::-1])[::-1].tolist()
        assert together[:20].tolist() == [encoder.encode([text])[0].tolist() for text in TEXTS[:20]]

    def test_embedding_tables_are_dequantised_after_lookup(self, exported):
        graph = onnx.load(str(exported["int8"].folder / MODEL_FILE)).graph
        types = {tensor.name: tensor.data_type for tensor in graph.initializer}
        lookups = [node for node in graph.node if node.op_type == "Gather"]
        tables = [node.input[0] for node in lookups if node.input[0] in types]
        assert [types[name] for name in tables].count(
            TensorProto.INT8
        ) == 3  # words, positions, token types
        scaled = {node.output[0] for node in graph.node if node.op_type == "DequantizeLinear"}
        assert not scaled & {node.input[0] for node in lookups}

    def test_int8_is_close_and_not_equal(self, tiny, exported):
        expected = embeddings_by_transformers(tiny, TEXTS)
        embeddings = exported["int8"].encode(TEXTS)
        assert (embeddings * expected).sum(axis=1).min() > 0.99
        assert np.abs(embeddings - expected).max() > 1e-4

    @pytest.mark.parametrize("precision", ["fp32", "int8"])
    def test_embeddings_have_unit_length(self, exported, precision):
        lengths = np.linalg.norm(exported[precision].encode(TEXTS), axis=1)
        assert lengths == pytest.approx(1, abs=1e-5)

    def test_no_texts_give_no_embeddings(self, encoder):
        assert encoder.encode([]).shape == (0, HIDDEN)
        assert encoder.tokenize([]) == []

    def test_long_text_is_cut_and_keeps_its_end_token(self, encoder):
        (tokens,) = encoder.tokenize(["сдам квартиру " * 1000])
        assert len(tokens) == POSITIONS == encoder.description.max_tokens
        assert tokens[0] == 2 and tokens[-1] == 3  # [CLS] and [SEP]
        beginning, *same = encoder.encode(["сдам " * 62, "сдам " * 62 + "студию", "сдам " * 500])
        assert same == pytest.approx(np.array([beginning] * 2), abs=1e-6)

    def test_equal_normalised_texts_have_equal_embeddings(self, encoder):
        left, right = encoder.encode(["сдам\tквартиру\u200b", " сдам  квартиру"])
        assert left == pytest.approx(right, abs=1e-6)

    def test_progress_adds_up(self, encoder):
        done: list[int] = []
        encoder.encode(TEXTS, done.append)
        assert sum(done) == len(TEXTS)

    def test_exported_encoder_loads_again(self, exported, tmp_path):
        for precision, first in exported.items():
            again = Encoder(first.folder, threads=1)
            assert again.description == first.description
            assert again.description.precision == precision
            assert again.encode(TEXTS[:9]) == pytest.approx(first.encode(TEXTS[:9]), abs=1e-6)

    @pytest.mark.parametrize(("tokens", "length"), [(3, 16), (16, 16), (17, 32), (50, 64)])
    def test_tokens_are_padded_to_a_multiple_of_sixteen(self, encoder, tokens, length, monkeypatch):
        seen = []
        monkeypatch.setattr(
            encoder.backend, "submit", lambda inputs: seen.append(inputs["input_ids"].shape)
        )
        encoder.submit([[5] * tokens])
        assert seen == [(1, length)]

    def test_folder_without_encoder_raises(self, tmp_path):
        with pytest.raises(FileNotFoundError, match="encoder.json"):
            Encoder(tmp_path)


class TestPooling:
    def test_cls_pooling_equals_transformers(self, tmp_path):
        folder = save_tiny_bert(tmp_path / "cls", pooling="cls")
        encoder = export_encoder(sources.load(str(folder)), tmp_path / "onnx", TEXTS)["fp32"]
        assert encoder.description.pooling == "cls"
        texts = [plain(text) for text in TEXTS[:5]]
        inputs = AutoTokenizer.from_pretrained(folder)(texts, padding=True, return_tensors="pt")
        with torch.inference_mode():
            model = AutoModel.from_pretrained(folder).eval()
            first = model(**inputs).last_hidden_state[:, 0].numpy()
        expected = first / np.linalg.norm(first, axis=1, keepdims=True)
        assert encoder.encode(TEXTS[:5]) == pytest.approx(expected, abs=1e-5)
        mean = embeddings_by_transformers(folder, TEXTS[:5])
        assert np.abs(mean - expected).max() > 0.01

    def test_prefix_is_put_before_every_text(self, tmp_path):
        folder = save_tiny_bert(tmp_path / "prefix", prefix="rent: ")
        encoder = export_encoder(sources.load(str(folder)), tmp_path / "onnx", TEXTS)["fp32"]
        assert encoder.description.prefix == "rent: "
        expected = embeddings_by_transformers(folder, TEXTS, prefix="rent: ")
        assert encoder.encode(TEXTS) == pytest.approx(expected, abs=1e-5)
        assert np.abs(embeddings_by_transformers(folder, TEXTS) - expected).max() > 0.01


def copy_damaged(encoder: Encoder, folder: Path, damage) -> Encoder:
    """Return a copy of `encoder` with its largest weight changed by `damage`."""
    source = encoder.folder / MODEL_FILE
    model = onnx.load(str(source))
    weights = max(
        (tensor for tensor in model.graph.initializer if len(tensor.dims) == 2),
        key=lambda tensor: int(np.prod(tensor.dims)),
    )
    values = onnx.numpy_helper.to_array(weights)
    weights.CopyFrom(
        onnx.numpy_helper.from_array(damage(values).astype(values.dtype), weights.name)
    )
    for name in ("tokenizer.json", "encoder.json"):  # no reference outputs: it would not load
        (folder / name).write_bytes((source.parent / name).read_bytes())
    onnx.save(model, str(folder / MODEL_FILE))
    return Encoder(folder)


class TestCheck:
    def test_correct_export_passes_with_its_figures(self, tiny, exported):
        model = pooled(sources.load(str(tiny)))
        figures = check(PyTorchEncoder(model), exported["fp32"], TEXTS)
        assert figures["largest_difference"] < 1e-4
        assert 0.9999 < figures["lowest_cosine"] <= figures["mean_cosine"] < 1.0001
        assert figures["messages"] == 64
        assert exported["fp32"].description.check["largest_difference"] < 1e-4

    @pytest.mark.parametrize("precision", ["fp32", "int8"])
    @pytest.mark.parametrize(
        "damage",
        [
            lambda weights: weights[::-1],
            lambda weights: np.roll(weights, 1, axis=1),
            lambda weights: weights * 0,
        ],
        ids=["rows reversed", "columns moved", "emptied"],
    )
    def test_damaged_weights_are_rejected(self, tiny, exported, tmp_path, precision, damage):
        damaged = copy_damaged(exported[precision], tmp_path, damage)
        with pytest.raises(ExportError, match=f"the {precision} encoder differs from PyTorch's"):
            check(PyTorchEncoder(pooled(sources.load(str(tiny)))), damaged, TEXTS)

    def test_small_error_is_rejected_in_fp32(self, tiny, exported, tmp_path):
        damaged = copy_damaged(exported["fp32"], tmp_path, lambda weights: weights * 1.003)
        with pytest.raises(ExportError):
            check(PyTorchEncoder(pooled(sources.load(str(tiny)))), damaged, TEXTS)

    def test_nan_weights_are_rejected(self, tiny, exported, tmp_path):
        damaged = copy_damaged(exported["fp32"], tmp_path, lambda weights: weights * np.nan)
        with pytest.raises(ExportError):
            check(PyTorchEncoder(pooled(sources.load(str(tiny)))), damaged, TEXTS)

    def test_wrong_pooling_is_rejected(self, tiny, exported):
        model = pooled(sources.load(str(tiny)))
        model.pooling = "cls"
        with pytest.raises(ExportError):
            check(PyTorchEncoder(model), exported["fp32"], TEXTS)

    def test_export_without_texts_raises(self, tiny, tmp_path):
        with pytest.raises(ExportError, match="checked on messages, and there are none"):
            export_encoder(sources.load(str(tiny)), tmp_path, [])

    def test_sample_covers_all_lengths(self):
        texts = ["a" * length for length in range(1, 1001)]
        picked = [len(text) for text in of_many_lengths(texts * 3, 11)]
        assert picked[0] == 1 and picked[-1] == 1000
        assert np.diff(picked) == pytest.approx(100, abs=1)
        assert of_many_lengths(["b", "a", "b"]) == ["a", "b"]

    def test_describe_is_one_line(self, exported):
        line = describe(exported["int8"])
        assert re.match(r"int8 against PyTorch on 64 messages: largest difference 0\.\d+", line)
        assert "\n" not in line


class TestDescription:
    def test_description_round_trip(self, tmp_path):
        written = EncoderDescription("источник", "cls", "q: ", 64, 32, "int8", {"messages": 3})
        written.write(tmp_path)
        assert EncoderDescription.read(tmp_path) == written
        assert "источник" in (tmp_path / "encoder.json").read_text(encoding="utf-8")
