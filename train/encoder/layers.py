"""Layers of BERT that are trained, and the hidden states that they start from."""

import copy
from collections.abc import Iterator, Sequence
from dataclasses import replace

import numpy as np
import torch
from torch import nn
from torch.nn.utils.rnn import pad_sequence
from tqdm import tqdm
from transformers.models.bert.modeling_bert import BertLayer

from export.sources import FINE_TUNED, Source
from feedsieve.scoring.features import Head
from feedsieve.text import plain

_MASKED = -1e4  # added to the attention scores of padding
_BATCH = 32  # texts, without training


class _Layers(nn.Module):
    """The trained layers of BERT, without those below them."""

    def __init__(self, source: Source, frozen: int, dropout: float | None = None) -> None:
        """Copy all but the lowest `frozen` layers; `dropout` defaults to BERT's own."""
        super().__init__()
        config = copy.deepcopy(source.model.config)
        config._attn_implementation = "eager"
        config.attention_probs_dropout_prob = 0.0  # costs more time than it gains
        if dropout is not None:
            config.hidden_dropout_prob = dropout
        self.layers = nn.ModuleList()
        for original in source.model.encoder.layer[frozen:]:
            layer = BertLayer(config)
            layer.load_state_dict(original.state_dict())
            self.layers.append(layer)
        self.frozen = frozen
        self.config = config

    def states(self, hidden: torch.Tensor, attention_mask: torch.Tensor) -> torch.Tensor:
        """Return the last layer's output, (batch, tokens, hidden size), 32-bit.

        `hidden` is the output of the layers below, of the same shape; `attention_mask`,
        (batch, tokens), is 1 for tokens and 0 for padding.
        """
        if not torch.is_autocast_enabled(hidden.device.type):
            hidden = hidden.float()  # it is stored in 16 bits
        mask = (1 - attention_mask[:, None, None].to(hidden.dtype)) * _MASKED
        for layer in self.layers:
            hidden = layer(hidden, mask)[0]
        return hidden.float()

    def merged(self, source: Source) -> Source:
        """Return a copy of `source` with these as its upper layers."""
        model = copy.deepcopy(source.model)
        for layer, trained in zip(model.encoder.layer[self.frozen :], self.layers, strict=True):
            layer.load_state_dict(trained.state_dict())
        return replace(source, model=model.eval())


class UpperLayers(_Layers):
    """The upper layers of BERT, with a linear head on the unit-length embedding."""

    def __init__(self, source: Source, frozen: int) -> None:
        """Copy all but the lowest `frozen` layers; the head gets small random weights."""
        super().__init__(source, frozen)
        config = self.config
        self.pooling = source.pooling
        self.dropout = nn.Dropout(config.hidden_dropout_prob)
        self.scale = config.hidden_size**0.5  # brings an embedding's values to the order of 1
        self.head = nn.Linear(config.hidden_size, 1)
        nn.init.normal_(self.head.weight, std=config.initializer_range)
        nn.init.zeros_(self.head.bias)

    def forward(
        self, hidden: torch.Tensor, attention_mask: torch.Tensor, labels: torch.Tensor | None = None
    ) -> dict[str, torch.Tensor]:
        """Return logits, (batch,), and the mean cross-entropy if `labels`, (batch,), are given.

        `hidden` and `attention_mask` as for `states`. Labels may be any value from 0 to 1.
        """
        hidden = self.states(hidden, attention_mask)
        if self.pooling == "cls":
            pooled = hidden[:, 0]
        else:
            weights = attention_mask.unsqueeze(-1).float()
            pooled = (hidden * weights).sum(1) / weights.sum(1)
        embedding = nn.functional.normalize(pooled, dim=-1) * self.scale
        # Under autocast the head itself would return 16-bit logits, too coarse to rank by.
        logits = (self.dropout(embedding) * self.head.weight).sum(-1) + self.head.bias
        if labels is None:
            return {"logits": logits}
        loss = nn.functional.binary_cross_entropy_with_logits(logits, labels.float())
        return {"loss": loss, "logits": logits}

    def exported_head(self) -> Head:
        """Return the head for embeddings of the exported encoder."""
        weights = self.head.weight.detach().numpy()[0].astype(np.float64) * self.scale
        return Head(weights, self.head.bias.item())

    def merged(self, source: Source) -> Source:
        """Return a copy of `source`, named as fine-tuned, with these as its upper layers."""
        return replace(super().merged(source), name=source.name + FINE_TUNED)


class StudentLayers(_Layers):
    """All layers of a student, trained to reproduce the teacher's last hidden states."""

    def __init__(self, source: Source, variance: float) -> None:
        """Copy the layers of `source`; `variance` is that of the teacher's states."""
        super().__init__(source, frozen=0, dropout=0.0)  # dropout would only add noise
        self.variance = variance

    def forward(
        self, hidden: torch.Tensor, attention_mask: torch.Tensor, targets: torch.Tensor
    ) -> dict[str, torch.Tensor]:
        """Return the mean squared error over all tokens, as a fraction of the variance.

        `hidden` is the embedding layer's output and `targets` the teacher's last hidden states,
        both (batch, tokens, hidden size).
        """
        errors = (self.states(hidden, attention_mask) - targets.float()).square().mean(-1)
        mask = attention_mask.float()
        return {"loss": (errors * mask).sum() / mask.sum() / self.variance}


def tokenize(source: Source, texts: Sequence[str]) -> list[list[int]]:
    """Return the token ids of each text, truncated to the encoder's limit."""
    prepared = [source.prefix + plain(text) for text in texts]
    return source.tokenizer(prepared, truncation=True, max_length=source.max_tokens)["input_ids"]


def frozen_states(source: Source, texts: Sequence[str], frozen: int) -> list[torch.Tensor]:
    """Return the output of the lowest `frozen` layers for each text, with a progress bar.

    The tensors are (tokens, hidden size), bfloat16, on the CPU.
    """
    tokens = tokenize(source, texts)
    rows = hidden_states(source, tokens, frozen, torch.bfloat16, "frozen layers")
    states = {row: state.clone() for row, state in rows}
    return [states[row] for row in range(len(tokens))]


def longest_first(tokens: Sequence[Sequence[int]]) -> list[int]:
    """Return the rows of `tokens` in the order of `hidden_states`."""
    return sorted(range(len(tokens)), key=lambda row: -len(tokens[row]))


@torch.inference_mode()
def hidden_states(
    source: Source, tokens: Sequence[Sequence[int]], layers: int, dtype: torch.dtype, name: str
) -> Iterator[tuple[int, torch.Tensor]]:
    """Yield each row of `tokens` with the output of the lowest `layers`, (tokens, hidden size).

    The tensors are of type `dtype`, on the CPU, and are views of a batch. `name` labels the
    progress bar.
    """
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    model = copy.deepcopy(source.model)
    model.to(device)  # type: ignore[arg-type]  # its decorator hides the signature
    order = longest_first(tokens)
    with tqdm(total=len(tokens), desc=name, unit="message") as progress:
        for start in range(0, len(order), _BATCH):
            rows = order[start : start + _BATCH]
            ids, mask = pad([torch.tensor(tokens[row]) for row in rows])
            with torch.autocast(device.type, torch.bfloat16, enabled=has_bf16()):
                states = model.embeddings(ids.to(device))
                bias = (1 - mask[:, None, None].to(device, states.dtype)) * _MASKED
                for layer in model.encoder.layer[:layers]:
                    states = layer(states, bias)[0]
            states = states.to("cpu", dtype)
            for row, state in zip(rows, states, strict=True):
                yield row, state[: len(tokens[row])]
            progress.update(len(rows))


def pad(rows: Sequence[torch.Tensor]) -> tuple[torch.Tensor, torch.Tensor]:
    """Return `rows`, each (tokens, …), as one padded tensor, and its attention mask."""
    masks = [torch.ones(len(row), dtype=torch.int64) for row in rows]
    return pad_sequence(list(rows), batch_first=True), pad_sequence(masks, batch_first=True)


def has_bf16() -> bool:
    """Return whether bfloat16 is faster than 32-bit floats on this machine."""
    if torch.cuda.is_available():
        return torch.cuda.is_bf16_supported()
    return torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()
