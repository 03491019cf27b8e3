"""LSTM and science transformer, as published with TEvolOp (Fox, Rundle, Donnellan and Feng 2022; the TFT is in tft.py).

Both forecast, per location, ten magnitudes (`windows.AHEAD`) and the 14 known inputs at the first step ahead.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

OUTPUTS = 24
DROPOUT = 0.2
"""Published dropout of LSTM inputs, LSTM states and encoder layers (notebook FFFFWNPF-EARTHQDGX-Transformer1)."""


def dense(inputs: int, outputs: int) -> nn.Linear:
    """A linear layer initialised as the original's: Glorot uniform, bias 0."""
    layer = nn.Linear(inputs, outputs)
    nn.init.xavier_uniform_(layer.weight)
    nn.init.zeros_(layer.bias)
    return layer


class SeluLSTM(nn.Module):
    """One LSTM layer with SELU for candidate and output, and dropout of inputs and states by one mask per sequence.

    `torch.nn.LSTM` has neither (nor a single bias, which the published parameter count needs), so time is a loop here.
    """

    def __init__(self, inputs: int, units: int, dropout: float) -> None:
        super().__init__()
        self.units, self.dropout = units, dropout
        self.kernel = nn.Parameter(nn.init.xavier_uniform_(torch.empty(4 * units, inputs)))
        self.recurrent = nn.Parameter(nn.init.orthogonal_(torch.empty(4 * units, units)))
        bias = torch.zeros(4 * units)
        bias[units : 2 * units] = 1  # in the order input, forget, output, candidate: the forget gate opens
        self.bias = nn.Parameter(bias)

    def forward(self, x: Tensor) -> Tensor:
        """(n, time, inputs) to the hidden states (n, time, units)."""
        dropped = self.training and self.dropout > 0
        if dropped:
            x = x * F.dropout(x.new_ones(len(x), 1, x.shape[-1]), self.dropout)
        driven = F.linear(x, self.kernel, self.bias)
        state = cell = driven.new_zeros(len(x), self.units)
        mask = F.dropout(torch.ones_like(state), self.dropout) if dropped else None
        recurrent, states = self.recurrent.T, []
        for step in driven.unbind(1):
            gates = torch.addmm(step, state if mask is None else state * mask, recurrent)
            opened, candidate = gates[:, : 3 * self.units].sigmoid(), F.selu(gates[:, 3 * self.units :])
            enter, keep, leave = opened.chunk(3, -1)
            cell = torch.addcmul(keep * cell, enter, candidate)
            state = leave * F.selu(cell)
            states.append(state)
        return torch.stack(states, 1)


class RecurrentHead(nn.Module):
    """Two LSTM layers, of whose last state a dense layer and a linear one make the outputs."""

    def __init__(self, inputs: int, units: int, width: int, dropout: float) -> None:
        super().__init__()
        self.layers = nn.Sequential(SeluLSTM(inputs, units, dropout), SeluLSTM(units, units, dropout))
        self.dense, self.output = dense(units, width), dense(width, OUTPUTS)

    def forward(self, x: Tensor) -> Tensor:
        """(n, time, inputs) to (n, 24)."""
        return self.output(F.selu(self.dense(self.layers(x)[:, -1])))


class LSTM(nn.Module):
    """Dense 128, LSTM 48 twice, dense 128, 24 outputs: 65,560 parameters with 27 inputs and width 128."""

    def __init__(self, inputs: int, width: int = 128, dropout: float = DROPOUT) -> None:
        super().__init__()
        self.embed = dense(inputs, width)
        self.head = RecurrentHead(width, 3 * width // 8, width, dropout)

    def forward(self, x: Tensor) -> Tensor:
        """(batch, locations, time, inputs) to (batch, locations, 24); locations do not see each other."""
        batch, locations = x.shape[:2]
        return self.head(F.selu(self.embed(x.flatten(0, 1)))).unflatten(0, (batch, locations))


class SpaceTimeAttention(nn.Module):
    """Attention of each location to its own past and, apart, to all locations of the moment; values are the embedding.

    Four heads. Every head weights the embedded input itself (no value projection), so that heads and both attentions
    put side by side are 8 · width numbers.
    """

    HEADS = 4

    def __init__(self, inputs: int, width: int) -> None:
        super().__init__()
        self.query, self.key = dense(inputs, width), dense(inputs, width)
        self.output = dense(2 * self.HEADS * width, 2 * width)

    def forward(self, x: Tensor, embedded: Tensor) -> Tensor:
        """(batch, locations, time, inputs) and the embedding (batch, locations, time, width) to 2 · width numbers."""
        query, key = (layer(x).unflatten(-1, (self.HEADS, -1)).movedim(-2, 2) for layer in (self.query, self.key))
        value = embedded.unsqueeze(2).expand(-1, -1, self.HEADS, -1, -1)  # batch, locations, heads, time, width
        in_time = F.scaled_dot_product_attention(query, key, value, is_causal=True)
        in_space = F.scaled_dot_product_attention(*(a.transpose(1, 3) for a in (query, key, value))).transpose(1, 3)
        return self.output(torch.cat([a.movedim(2, 3).flatten(-2) for a in (in_time, in_space)], -1))


class EncoderLayer(nn.Module):
    """Attention and a feed-forward network, each followed by dropout, addition of its input and normalisation."""

    def __init__(self, inputs: int, width: int, dropout: float) -> None:
        super().__init__()
        self.attention = SpaceTimeAttention(inputs, width)
        self.feed_forward = nn.Sequential(dense(2 * width, 4 * width), nn.SELU(), dense(4 * width, 2 * width))
        self.dropout = nn.Dropout(dropout)
        self.norms = nn.ModuleList(nn.LayerNorm(2 * width, eps=1e-6) for _ in range(2))

    def forward(self, x: Tensor, embedded: Tensor) -> Tensor:
        """(…, inputs) to (…, 2 · width); the first layer's narrower input is added twice over."""
        attended = self.dropout(self.attention(x, embedded))
        x = self.norms[0](attended + x.repeat(1, 1, 1, attended.shape[-1] // x.shape[-1]))
        return self.norms[1](x + self.dropout(self.feed_forward(x)))


class ScienceTransformer(nn.Module):
    """A transformer over space and time as encoder, two LSTM layers as decoder, with 27 inputs and width 128:
    2,482,456 parameters.

    Not repeated from the original: values reshaped across locations by accident, and a time mask that hides from
    each step also itself (here a step sees itself and what came before).
    """

    LAYERS = 4

    def __init__(self, inputs: int, width: int = 128, dropout: float = DROPOUT) -> None:
        super().__init__()
        self.embed = dense(inputs, width)
        self.dropout = nn.Dropout(dropout)
        widths = [width] + [2 * width] * (self.LAYERS - 1)
        self.encoder = nn.ModuleList(EncoderLayer(w, width, dropout) for w in widths)
        self.merge = dense(3 * width, width)
        self.head = RecurrentHead(width, width // 2, width, dropout)

    def forward(self, x: Tensor) -> Tensor:
        """(batch, locations, time, inputs) to (batch, locations, 24)."""
        batch, locations = x.shape[:2]
        embedded = F.selu(self.embed(x))
        encoded = self.dropout(embedded)
        for layer in self.encoder:
            encoded = layer(encoded, embedded)
        merged = F.selu(self.merge(torch.cat([embedded, encoded], -1)))
        return self.head(merged.flatten(0, 1)).unflatten(0, (batch, locations))
