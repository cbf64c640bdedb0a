"""A tiny BERT, which exports within a second."""

import json
import string
from pathlib import Path

import torch
from transformers import BertConfig, BertModel, BertTokenizerFast

HIDDEN = 32
POSITIONS = 64
ALPHABET = string.ascii_lowercase + string.digits + "абвгдеёжзийклмнопрстуфхцчшщъыьэюя" + "αβγδε"
WORDS = ["сдам", "сдаю", "сниму", "квартиру", "студию", "евро", "flat", "rent", "let", "euro"]


def save_tiny_bert(
    folder: Path, *, pooling: str = "mean", prefix: str = "", seed: int = 0, layers: int = 2
) -> Path:
    """Save an untrained encoder as transformers does, with pooling and prefix files."""
    torch.manual_seed(seed)
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    pieces = [*special, *ALPHABET, *(f"##{letter}" for letter in ALPHABET), *WORDS, *".,!?-€"]
    folder.mkdir(parents=True)
    vocabulary = folder / "vocab.txt"
    vocabulary.write_text("\n".join(pieces) + "\n", encoding="utf-8")
    config = BertConfig(
        vocab_size=len(pieces),
        hidden_size=HIDDEN,
        num_hidden_layers=layers,
        num_attention_heads=4,
        intermediate_size=64,
        max_position_embeddings=POSITIONS,
        initializer_range=0.2,  # so that embeddings differ
    )
    BertModel(config, add_pooling_layer=False).save_pretrained(folder)
    BertTokenizerFast(vocab_file=str(vocabulary), do_lower_case=True).save_pretrained(folder)
    if pooling == "cls":
        (folder / "1_Pooling").mkdir()
        modes = {"pooling_mode_cls_token": True, "pooling_mode_mean_tokens": False}
        (folder / "1_Pooling" / "config.json").write_text(json.dumps(modes))
    if prefix:
        prompts = {"prompts": {"query": prefix}, "default_prompt_name": "query"}
        path = folder / "config_sentence_transformers.json"
        path.write_text(json.dumps(prompts))
    return folder
