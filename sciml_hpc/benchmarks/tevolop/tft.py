"""The temporal fusion transformer (Lim, Arik, Loeff and Pfister 2021) as MLCommons Science's TEvolOp configures it.

Every input is embedded by itself; networks with gates select among them, static inputs steering the selection; an LSTM
reads the year seen, another the known inputs of the year ahead; attention looks back from each step ahead; and each of
the four targets has final gates of its own. With width 160: 7,868,209 parameters.

Not repeated from the original: the final gates of target k fed on what those of target k − 1 put out (here all
start from the attention), and the second LSTM layer started from the first one's end (here each layer from its own
counterpart).
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

DROPOUT = 0.1
"""Published dropout."""
HEADS = 4
NORM_EPSILON = 1e-3
"""As the original's framework has it by default."""


class Dense(nn.Module):
    """A linear layer, or a bank of them, one for each of `bank` variables side by side: (…, bank, in) to (…, bank,
    out)."""

    def __init__(self, inputs: int, outputs: int, bank: int | None = None, bias: bool = True, layers: int = 1) -> None:
        """`layers`: so many of them on the same input, their outputs in a row."""
        super().__init__()
        shape = () if bank is None else (bank,)
        limit = (6 / (inputs + outputs)) ** 0.5  # Glorot uniform
        self.weight = nn.Parameter(torch.empty(*shape, inputs, layers * outputs).uniform_(-limit, limit))
        self.bias = nn.Parameter(torch.zeros(*shape, layers * outputs)) if bias else None

    def forward(self, x: Tensor) -> Tensor:
        if self.weight.dim() == 2:
            result = x @ self.weight
        else:
            flat = x.flatten(0, -3).transpose(0, 1)
            result = torch.bmm(flat, self.weight).transpose(0, 1).unflatten(0, x.shape[:-2])
        return result if self.bias is None else result + self.bias


class Norm(nn.Module):
    """Layer normalisation, with own scale and shift for each variable of a bank."""

    def __init__(self, width: int, bank: int | None) -> None:
        super().__init__()
        shape = (width,) if bank is None else (bank, width)
        self.scale, self.shift = nn.Parameter(torch.ones(shape)), nn.Parameter(torch.zeros(shape))

    def forward(self, x: Tensor) -> Tensor:
        return F.layer_norm(x, x.shape[-1:], eps=NORM_EPSILON) * self.scale + self.shift


class Gate(nn.Module):
    """Dropout, gated linear unit, addition of a skipped input, normalisation."""

    def __init__(self, inputs: int, outputs: int, bank: int | None = None) -> None:
        super().__init__()
        self.dropout = nn.Dropout(DROPOUT)
        self.units = Dense(inputs, outputs, bank, layers=2)
        self.norm = Norm(outputs, bank)

    def forward(self, x: Tensor, skipped: Tensor) -> Tensor:
        return self.norm(skipped + F.glu(self.units(self.dropout(x))))


class GatedResidual(nn.Module):
    """Gated residual network: two layers with ELU between, gated, added to the (if need be projected) input."""

    def __init__(
        self, inputs: int, width: int, outputs: int | None = None, context: bool = False, bank: int | None = None
    ) -> None:
        super().__init__()
        self.skip = None if outputs is None else Dense(inputs, outputs, bank)
        self.first, self.second = Dense(inputs, width, bank), Dense(width, width, bank)
        self.context = Dense(width, width, bank, bias=False) if context else None
        self.gate = Gate(width, outputs or width, bank)

    def forward(self, x: Tensor, context: Tensor | None = None) -> Tensor:
        hidden = self.first(x)
        if self.context is not None:
            hidden = hidden + self.context(context)
        return self.gate(self.second(F.elu(hidden)), x if self.skip is None else self.skip(x))


class Selection(nn.Module):
    """Variable selection: (…, variables, width) to their weighted sum (…, width), each passed through its own
    network."""

    def __init__(self, variables: int, width: int, context: bool) -> None:
        super().__init__()
        self.weights = GatedResidual(variables * width, width, variables, context)
        self.each = GatedResidual(width, width, bank=variables)

    def forward(self, x: Tensor, context: Tensor | None = None) -> Tensor:
        weights = self.weights(x.flatten(-2), context).softmax(-1)
        return (weights.unsqueeze(-1) * self.each(x)).sum(-2)


class Attention(nn.Module):
    """Interpretable attention: heads differ in query and key and share the values; their mean is projected."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.query, self.key = Dense(width, width, bias=False), Dense(width, width, bias=False)
        self.value = Dense(width, width // HEADS, bias=False)
        self.output = Dense(width // HEADS, width, bias=False)
        self.dropout = nn.Dropout(DROPOUT)

    def forward(self, queries: Tensor, x: Tensor) -> Tensor:
        """From each of `queries` (n, q, width), the last q steps of `x` (n, time, width), back over itself and
        earlier."""
        steps, asked = x.shape[1], queries.shape[1]
        visible = torch.ones(asked, steps, dtype=torch.bool, device=x.device).tril(steps - asked)
        query = self.query(queries).unflatten(-1, (HEADS, -1)).transpose(1, 2)
        key = self.key(x).unflatten(-1, (HEADS, -1)).transpose(1, 2)
        value = self.value(x).unsqueeze(1).expand(-1, HEADS, -1, -1)
        heads = F.scaled_dot_product_attention(query, key, value, attn_mask=visible)
        return self.dropout(self.output(self.dropout(heads).mean(1)))


class TargetHead(nn.Module):
    """The final gates of one target, and its linear output."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.gate, self.residual = Gate(width, width), GatedResidual(width, width)
        self.last_gate, self.output = Gate(width, width), Dense(width, 1)

    def forward(self, attended: Tensor, enriched: Tensor, temporal: Tensor) -> Tensor:
        return self.output(self.last_gate(self.residual(self.gate(attended, enriched)), temporal))


class TFT(nn.Module):
    """The whole network for `static`, `observed` and `known` inputs and a number of targets."""

    def __init__(
        self, static: int, observed: int, known: int, targets: int, width: int = 160, dropout: float = DROPOUT
    ) -> None:
        super().__init__()
        self.embed_static = Dense(1, width, static)
        self.embed_observed, self.embed_known = Dense(1, width, observed), Dense(1, width, known)
        self.select_static = Selection(static, width, context=False)
        self.contexts = nn.ModuleList(GatedResidual(width, width) for _ in range(4))
        self.select_past = Selection(observed + known, width, context=True)
        self.select_future = Selection(known, width, context=True)
        self.past, self.future = (nn.LSTM(width, width, 2, batch_first=True) for _ in range(2))
        self.gate = Gate(width, width)
        self.enrich = GatedResidual(width, width, context=True)
        self.attention = Attention(width)
        self.heads = nn.ModuleList(TargetHead(width) for _ in range(targets))
        for module in self.modules():
            if isinstance(module, nn.Dropout):
                module.p = dropout

    def forward(self, static: Tensor, observed: Tensor, known: Tensor) -> Tensor:
        """(…, static), (…, seen, observed) and (…, seen + ahead, known) to (…, ahead, targets)."""
        lead, seen = static.shape[:-1], observed.shape[-2]
        static, observed, known = static.flatten(0, -2), observed.flatten(0, -3), known.flatten(0, -3)
        place = self.select_static(self.embed_static(static.unsqueeze(-1)))
        selecting, enriching, state, cell = (context(place) for context in self.contexts)
        known_embedded = self.embed_known(known.unsqueeze(-1))
        past = torch.cat([self.embed_observed(observed.unsqueeze(-1)), known_embedded[:, :seen]], -2)
        steering = selecting.unsqueeze(1)
        past = self.select_past(past, steering)
        future = self.select_future(known_embedded[:, seen:], steering)
        start = tuple(s.unsqueeze(0).repeat(2, 1, 1) for s in (state, cell))
        from_past, end = self.past(past, start)
        from_future, _ = self.future(future, end)
        temporal = self.gate(torch.cat([from_past, from_future], 1), torch.cat([past, future], 1))
        enriched = self.enrich(temporal, enriching.unsqueeze(1))
        ahead, temporal = enriched[:, seen:], temporal[:, seen:]
        attended = self.attention(ahead, enriched)
        return torch.cat([head(attended, ahead, temporal) for head in self.heads], -1).unflatten(0, lead)
