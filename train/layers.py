"""The part of BERT that learns, and the part that does not, whose output is computed once."""

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
from feedsieve.features import Head
from feedsieve.text import plain

_MASKED = -1e4  # added to the attention that padding would get
_TEXTS_AT_ONCE = 32


class _Layers(nn.Module):
    """Layers of BERT that learn, without what is below them."""

    def __init__(self, source: Source, frozen: int, dropout: float | None = None) -> None:
        """Copy all but the lowest `frozen` layers; `dropout` is that of BERT unless it is given."""
        super().__init__()
        config = copy.deepcopy(source.model.config)
        config._attn_implementation = "eager"
        config.attention_probs_dropout_prob = 0.0  # costs more time than it gains
        if dropout is not None:
            config.hidden_dropout_prob = dropout
        self.layers = nn.ModuleList()
        for learnt in source.model.encoder.layer[frozen:]:
            layer = BertLayer(config)
            layer.load_state_dict(learnt.state_dict())
            self.layers.append(layer)
        self.frozen = frozen
        self.config = config

    def states(self, hidden: torch.Tensor, attention_mask: torch.Tensor) -> torch.Tensor:
        """Return the last layer's output, (batch, tokens, hidden size), in 32 bits.

        `hidden` is what the lower layers gave, of the same shape; `attention_mask` is 1 where there
        is a token and 0 where there is none, (batch, tokens).
        """
        if not torch.is_autocast_enabled(hidden.device.type):
            hidden = hidden.float()  # 16 bits are only how the lower layers' output is kept
        mask = (1 - attention_mask[:, None, None].to(hidden.dtype)) * _MASKED
        for layer in self.layers:
            hidden = layer(hidden, mask)[0]
        return hidden.float()

    def put_into(self, source: Source, name: str) -> Source:
        """Return a copy of `source`, of that name, whose upper layers are these."""
        model = copy.deepcopy(source.model)
        for layer, learnt in zip(model.encoder.layer[self.frozen :], self.layers, strict=True):
            layer.load_state_dict(learnt.state_dict())
        return replace(source, name=name, model=model.eval())


class UpperLayers(_Layers):
    """The upper layers of BERT, and a head that is linear in the unit-length embedding."""

    def __init__(self, source: Source, frozen: int) -> None:
        """Copy all but the lowest `frozen` layers of the encoder; the head is random and small."""
        super().__init__(source, frozen)
        config = self.config
        self.pooling = source.pooling
        self.dropout = nn.Dropout(config.hidden_dropout_prob)
        self.scale = config.hidden_size**0.5  # makes an embedding's numbers of the order of 1
        self.head = nn.Linear(config.hidden_size, 1)
        nn.init.normal_(self.head.weight, std=config.initializer_range)
        nn.init.zeros_(self.head.bias)

    def forward(
        self, hidden: torch.Tensor, attention_mask: torch.Tensor, labels: torch.Tensor | None = None
    ) -> dict[str, torch.Tensor]:
        """Return logits of positive, (batch,), and the mean loss if `labels`, (batch,), are given.

        `hidden` and `attention_mask` are those of `states`.
        """
        hidden = self.states(hidden, attention_mask)
        if self.pooling == "cls":
            pooled = hidden[:, 0]
        else:
            weights = attention_mask.unsqueeze(-1).float()
            pooled = (hidden * weights).sum(1) / weights.sum(1)
        embedding = nn.functional.normalize(pooled, dim=-1) * self.scale
        # Not by calling the head, which autocast would let answer in 16 bits: too few to rank by.
        logits = (self.dropout(embedding) * self.head.weight).sum(-1) + self.head.bias
        if labels is None:
            return {"logits": logits}
        loss = nn.functional.binary_cross_entropy_with_logits(logits, labels.float())
        return {"loss": loss, "logits": logits}

    def head_of_encoder(self) -> Head:
        """Return the head as it is applied to the embeddings of the exported encoder."""
        weights = self.head.weight.detach().numpy()[0].astype(np.float64) * self.scale
        return Head(weights, self.head.bias.item())

    def merged(self, source: Source) -> Source:
        """Return a copy of `source` whose upper layers are these."""
        return self.put_into(source, source.name + FINE_TUNED)


class ImitatingLayers(_Layers):
    """All layers of a smaller encoder, which learn to give what a larger one gives."""

    def __init__(self, source: Source, variance: float) -> None:
        """Copy the layers of `source`; `variance` is that of the targets, to measure errors by."""
        super().__init__(source, frozen=0, dropout=0.0)  # noise would only blur what is imitated
        self.variance = variance

    def forward(
        self, hidden: torch.Tensor, attention_mask: torch.Tensor, targets: torch.Tensor
    ) -> dict[str, torch.Tensor]:
        """Return the mean squared error of all tokens, as a share of the targets' variance.

        `hidden` is the embedding layer's output and `targets` the larger encoder's last layer's,
        both (batch, tokens, hidden size).
        """
        errors = (self.states(hidden, attention_mask) - targets.float()).square().mean(-1)
        real = attention_mask.float()
        return {"loss": (errors * real).sum() / real.sum() / self.variance}


def tokens_of(source: Source, texts: Sequence[str]) -> list[list[int]]:
    """Return the tokens of each text, as many as the encoder reads."""
    prepared = [source.prefix + plain(text) for text in texts]
    return source.tokenizer(prepared, truncation=True, max_length=source.max_tokens)["input_ids"]


def lower_layers(source: Source, texts: Sequence[str], frozen: int) -> list[torch.Tensor]:
    """Return what the lowest `frozen` layers make of each text, with a progress bar.

    The tensors are (tokens, hidden size) in 16-bit floats on the CPU.
    """
    tokens = tokens_of(source, texts)
    states = layer_states(source, tokens, frozen, torch.bfloat16, "frozen layers")
    found = {row: state.clone() for row, state in states}
    return [found[row] for row in range(len(tokens))]


def longest_first(tokens: Sequence[Sequence[int]]) -> list[int]:
    """Return the rows of `tokens` in the order in which `layer_states` goes through them."""
    return sorted(range(len(tokens)), key=lambda row: -len(tokens[row]))


@torch.inference_mode()
def layer_states(
    source: Source, tokens: Sequence[Sequence[int]], layers: int, kept: torch.dtype, name: str
) -> Iterator[tuple[int, torch.Tensor]]:
    """Yield each row of `tokens` with what the lowest `layers` make of it, (tokens, hidden size).

    The tensors are of type `kept`, on the CPU, and share memory with others. `name` stands before
    the progress bar.
    """
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    model = copy.deepcopy(source.model)
    model.to(device)  # type: ignore[arg-type]  # its decorator hides the signature
    order = longest_first(tokens)
    with tqdm(total=len(tokens), desc=name, unit="message") as progress:
        for start in range(0, len(order), _TEXTS_AT_ONCE):
            rows = order[start : start + _TEXTS_AT_ONCE]
            ids, mask = pad([torch.tensor(tokens[row]) for row in rows])
            with torch.autocast(device.type, torch.bfloat16, enabled=has_bf16()):
                states = model.embeddings(ids.to(device))
                spared = (1 - mask[:, None, None].to(device, states.dtype)) * _MASKED
                for layer in model.encoder.layer[:layers]:
                    states = layer(states, spared)[0]
            states = states.to("cpu", kept)
            for row, state in zip(rows, states, strict=True):
                yield row, state[: len(tokens[row])]
            progress.update(len(rows))


def pad(rows: Sequence[torch.Tensor]) -> tuple[torch.Tensor, torch.Tensor]:
    """Return `rows`, each (tokens, …), as one tensor, and the attention mask that tells padding."""
    masks = [torch.ones(len(row), dtype=torch.int64) for row in rows]
    return pad_sequence(list(rows), batch_first=True), pad_sequence(masks, batch_first=True)


def has_bf16() -> bool:
    """Return whether this machine computes faster in 16-bit floats than in 32-bit ones."""
    if torch.cuda.is_available():
        return torch.cuda.is_bf16_supported()
    return torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()
