"""Models that people bring to a federation, each with a task and records made up for it.

The table of the book and its test, the benchmark of the engines and the fuzzing of models take them
from here. All of them are small: a client trains in milliseconds.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Generator, Tensor, nn

Make = Callable[[], nn.Module]
# From a number of records and their randomness to inputs and targets.
Data = Callable[[int, Generator], tuple[Any, Tensor]]

# Sizes that all share: classes, words, words in a sentence, features of a word.
CLASSES, WORDS, LENGTH, WIDTH = 4, 12, 8, 16
PIXELS = 8


@dataclass(frozen=True)
class Specimen:
    """A model and what is asked of it.

    Parameters
    ----------
    family, task : str
        For the table.
    make : callable
        A fresh model.
    data : callable
        Records and targets.
    loss : callable, optional
        None: cross-entropy.
    draws : bool
        Whether training draws random numbers.
    refused : str
        Words of the refusal, where it must not run.
    """

    family: str
    task: str
    make: Make
    data: Data
    loss: Callable[[Any, Tensor], Tensor] | None = None
    draws: bool = False
    refused: str = ""

    @property
    def name(self) -> str:
        return f"{self.family}: {self.task}"


def _labels(n: int, g: Generator) -> Tensor:
    return torch.randint(CLASSES, (n,), generator=g)


def vectors(n: int, g: Generator) -> tuple[Tensor, Tensor]:
    return torch.randn(n, WIDTH, generator=g), _labels(n, g)


def images(n: int, g: Generator) -> tuple[Tensor, Tensor]:
    return torch.randn(n, 3, PIXELS, PIXELS, generator=g), _labels(n, g)


def waves(n: int, g: Generator) -> tuple[Tensor, Tensor]:
    return torch.randn(n, 2, LENGTH * 2, generator=g), _labels(n, g)


def series(n: int, g: Generator) -> tuple[Tensor, Tensor]:
    return torch.randn(n, LENGTH, WIDTH, generator=g), _labels(n, g)


def sentences(n: int, g: Generator) -> tuple[Tensor, Tensor]:
    return torch.randint(WORDS, (n, LENGTH), generator=g), _labels(n, g)


def next_words(n: int, g: Generator) -> tuple[Tensor, Tensor]:
    words = torch.randint(WORDS, (n, LENGTH + 1), generator=g)
    return words[:, :-1], words[:, 1:]


def padded_words(n: int, g: Generator) -> tuple[Tensor, Tensor]:
    words, following = next_words(n, g)
    ends = torch.randint(2, LENGTH + 1, (n, 1), generator=g)
    return words, following.masked_fill(torch.arange(LENGTH) >= ends, -100)


def tokens(n: int, g: Generator) -> tuple[dict[str, Tensor], Tensor]:
    words, labels = sentences(n, g)
    mask = (torch.rand(n, LENGTH, generator=g) < 0.8).long()
    mask[:, 0] = 1
    return {"input_ids": words, "attention_mask": mask}, labels


def pairs(n: int, g: Generator) -> tuple[tuple[Tensor, Tensor], Tensor]:
    return (torch.randint(WORDS, (n,), generator=g), torch.randn(n, WIDTH, generator=g)), _labels(
        n, g
    )


def numbers(n: int, g: Generator) -> tuple[Tensor, Tensor]:
    x = torch.randn(n, WIDTH, generator=g)
    return x, x[:, 0] - x[:, 1] ** 2


def counts(n: int, g: Generator) -> tuple[Tensor, Tensor]:
    x = torch.randn(n, WIDTH, generator=g)
    return x, torch.randint(5, (n,), generator=g)


def several(n: int, g: Generator) -> tuple[Tensor, Tensor]:
    return torch.randn(n, WIDTH, generator=g), torch.randint(2, (n, CLASSES), generator=g)


def yes_or_no(n: int, g: Generator) -> tuple[Tensor, Tensor]:
    return torch.randn(n, WIDTH, generator=g), torch.randint(2, (n,), generator=g)


def themselves(n: int, g: Generator) -> tuple[Tensor, Tensor]:
    x = torch.randn(n, WIDTH, generator=g)
    return x, x


def maps(n: int, g: Generator) -> tuple[Tensor, Tensor]:
    x = torch.randn(n, 3, PIXELS, PIXELS, generator=g)
    return x, torch.randint(CLASSES, (n, PIXELS, PIXELS), generator=g)


def mlp(outputs: int = CLASSES, dropout: float = 0.0) -> nn.Module:
    return nn.Sequential(
        nn.Linear(WIDTH, 16), nn.ReLU(), nn.Dropout(dropout), nn.Linear(16, outputs)
    )


def cnn() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2),
        nn.Conv2d(8, 8, 3, padding=1), nn.ReLU(), nn.Flatten(),
        nn.Linear(8 * (PIXELS // 2) ** 2, CLASSES),
    )  # fmt: skip


def normed_first() -> nn.Module:
    return nn.Sequential(
        nn.GroupNorm(1, 3),
        nn.Conv2d(3, 4, 3),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(4 * (PIXELS - 2) ** 2, CLASSES),
    )


def flat_first() -> nn.Module:
    layers = [nn.Flatten(), nn.Linear(3 * PIXELS**2, 16), nn.ReLU(), nn.Linear(16, CLASSES)]
    return nn.Sequential(*layers)


def frozen_convolution() -> nn.Module:
    model = nn.Sequential(
        nn.Conv2d(3, 4, 3),
        nn.GroupNorm(2, 4),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(4 * (PIXELS - 2) ** 2, CLASSES),
    )
    model[0].requires_grad_(False)
    return model


class Residual(nn.Module):
    """A block of a ResNet with group norm."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.first = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.second = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.norms = nn.ModuleList([nn.GroupNorm(2, channels) for _ in range(2)])

    def forward(self, x: Tensor) -> Tensor:
        inside = F.relu(self.norms[0](self.first(x)))
        return F.relu(x + self.norms[1](self.second(inside)))


def small_resnet() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1),
        Residual(8),
        Residual(8),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(8, CLASSES),
    )


def resnet18() -> nn.Module:
    from fldp.datasets import import_torchvision

    made = import_torchvision().models.resnet18
    model: nn.Module = made(num_classes=CLASSES, norm_layer=lambda width: nn.GroupNorm(2, width))
    return model


def frozen_batch_norm() -> nn.Module:
    """A backbone with fixed statistics, and a head that is trained."""

    class Backbone(nn.Sequential):
        def train(self, mode: bool = True) -> nn.Module:
            return super().train(False)

    backbone = Backbone(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten())
    backbone.requires_grad_(False).eval()
    return nn.Sequential(backbone, nn.Linear(4 * (PIXELS - 2) ** 2, CLASSES))


class Recurrent(nn.Module):
    """A recurrent layer on a series of vectors; the last state decides."""

    def __init__(self, kind: type[nn.RNNBase], **options: Any) -> None:
        super().__init__()
        self.inner = kind(WIDTH, 8, batch_first=True, **options)
        self.head = nn.Linear(16 if options.get("bidirectional") else 8, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.inner(x)[0][:, -1])


class Words(nn.Module):
    """The next word, by a recurrent layer on embedded words."""

    def __init__(self, kind: type[nn.RNNBase]) -> None:
        super().__init__()
        self.embed = nn.Embedding(WORDS, WIDTH)
        self.inner = kind(WIDTH, WIDTH, batch_first=True)
        self.head = nn.Linear(WIDTH, WORDS)

    def forward(self, words: Tensor) -> Tensor:
        return self.head(self.inner(self.embed(words))[0])


class Attention(nn.Module):
    """One layer of attention over a series of vectors."""

    def __init__(self, dropout: float) -> None:
        super().__init__()
        self.mix = nn.MultiheadAttention(WIDTH, 2, dropout=dropout, batch_first=True)
        self.head = nn.Linear(WIDTH, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.mix(x, x, x, need_weights=False)[0].mean(1))


class Encoder(nn.Module):
    """A transformer's encoder on embedded words."""

    def __init__(self, dropout: float) -> None:
        super().__init__()
        self.embed = nn.Embedding(WORDS, WIDTH)
        layer = nn.TransformerEncoderLayer(WIDTH, 2, 16, dropout=dropout, batch_first=True)
        self.layers = nn.TransformerEncoder(layer, 1, enable_nested_tensor=False)
        self.head = nn.Linear(WIDTH, CLASSES)

    def forward(self, words: Tensor) -> Tensor:
        return self.head(self.layers(self.embed(words)).mean(1))


class Block(nn.Module):
    """A block of a GPT."""

    def __init__(self, dropout: float) -> None:
        super().__init__()
        self.norms = nn.ModuleList([nn.LayerNorm(WIDTH) for _ in range(2)])
        self.qkv = nn.Linear(WIDTH, 3 * WIDTH)
        self.out = nn.Linear(WIDTH, WIDTH)
        self.inside = nn.Sequential(nn.Linear(WIDTH, 16), nn.GELU(), nn.Linear(16, WIDTH))
        self.dropout = dropout

    def forward(self, x: Tensor) -> Tensor:
        parts = self.qkv(self.norms[0](x)).chunk(3, -1)
        q, k, v = (part.unflatten(-1, (2, -1)).transpose(-2, -3) for part in parts)
        p = self.dropout if self.training else 0.0
        mixed = F.scaled_dot_product_attention(q, k, v, dropout_p=p, is_causal=True)
        x = x + F.dropout(self.out(mixed.transpose(-2, -3).flatten(-2)), p)
        return x + self.inside(self.norms[1](x))


class GPT(nn.Module):
    """A small GPT; the embedding and the head are one weight."""

    def __init__(self, dropout: float = 0.0) -> None:
        super().__init__()
        self.embed = nn.Embedding(WORDS, WIDTH)
        self.place = nn.Parameter(torch.zeros(LENGTH, WIDTH))
        self.blocks = nn.Sequential(*[Block(dropout) for _ in range(2)])
        self.norm = nn.LayerNorm(WIDTH)
        self.head = nn.Linear(WIDTH, WORDS, bias=False)
        self.head.weight = self.embed.weight

    def forward(self, words: Tensor) -> Tensor:
        return self.head(self.norm(self.blocks(self.embed(words) + self.place)))


class LowRank(nn.Module):
    """A frozen linear layer plus a trained product of two thin matrices (Hu et al. 2021)."""

    def __init__(self, base: nn.Linear, rank: int = 2) -> None:
        super().__init__()
        self.base = base.requires_grad_(False)
        self.down = nn.Parameter(torch.randn(rank, base.in_features) / base.in_features**0.5)
        self.up = nn.Parameter(torch.zeros(base.out_features, rank))

    def forward(self, x: Tensor) -> Tensor:
        return self.base(x) + x @ self.down.T @ self.up.T


def adapted() -> nn.Module:
    """A small GPT, frozen, with adapters in its attention."""
    model = GPT().requires_grad_(False)
    for block in model.blocks:
        block.qkv = LowRank(block.qkv)
    return model


class Named(nn.Module):
    """Takes arguments by name and returns an object with scores, as language models do."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(WORDS, WIDTH)
        self.head = nn.Linear(WIDTH, CLASSES)

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> SimpleNamespace:
        weight = attention_mask.unsqueeze(-1).to(self.embed.weight)
        pooled = (self.embed(input_ids) * weight).sum(1) / weight.sum(1)
        return SimpleNamespace(logits=self.head(pooled))


class Towers(nn.Module):
    """Takes a word and a vector; returns a tuple that begins with the scores."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(WORDS, WIDTH)
        self.head = nn.Linear(2 * WIDTH, CLASSES)

    def forward(self, word: Tensor, vector: Tensor) -> tuple[Tensor, Tensor]:
        both = torch.cat([self.embed(word), vector], -1)
        return self.head(both), both


class Noisy(nn.Module):
    """Draws noise of its own while it trains."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = nn.Linear(WIDTH, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        return self.inner(x + 0.1 * torch.randn_like(x) if self.training else x)


class Branching(nn.Module):
    """Its way depends on the values of a batch."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = nn.Linear(WIDTH, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        return self.inner(x if float(x.sum()) > 0 else -x)


def normed_weights() -> nn.Module:
    inner = nn.utils.parametrizations.weight_norm(nn.Linear(WIDTH, 8))
    return nn.Sequential(inner, nn.Tanh(), nn.Linear(8, CLASSES))


def hooked() -> nn.Module:
    model = mlp()
    model.register_forward_hook(lambda module, given, out: 2 * out)
    return model


def half() -> nn.Module:
    return mlp().to(torch.bfloat16)


def convolved() -> nn.Module:
    return nn.Sequential(
        nn.Conv1d(2, 4, 3), nn.ReLU(), nn.AdaptiveAvgPool1d(1), nn.Flatten(), nn.Linear(4, CLASSES)
    )


def segmented() -> nn.Module:
    return nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.ReLU(), nn.Conv2d(8, CLASSES, 1))


def batch_normed() -> nn.Module:
    return nn.Sequential(nn.Linear(WIDTH, 16), nn.BatchNorm1d(16), nn.Linear(16, CLASSES))


def uneven(out: Tensor, y: Tensor) -> Tensor:
    """A loss of one's own: the hardest record counts twice. It is not a mean over records."""
    each = F.cross_entropy(out, y, reduction="none")
    return each.mean() + each.max()


# Classes that count differently: the mean is over their weights.
WEIGHTED = nn.CrossEntropyLoss(weight=torch.linspace(1, 2, CLASSES))

SPECIMENS = [
    Specimen("Linear", "labels", lambda: nn.Linear(WIDTH, CLASSES), vectors),
    Specimen("MLP", "labels", mlp, vectors),
    Specimen("MLP with dropout", "labels", lambda: mlp(dropout=0.2), vectors, draws=True),
    Specimen("MLP", "a number", lambda: mlp(1), numbers, F.mse_loss),
    Specimen("MLP", "a count", lambda: mlp(1), counts, nn.PoissonNLLLoss()),
    Specimen("MLP", "yes or no", lambda: mlp(1), yes_or_no, F.binary_cross_entropy_with_logits),
    Specimen("MLP", "several labels", mlp, several, nn.BCEWithLogitsLoss()),
    Specimen("MLP", "weighted classes", mlp, vectors, WEIGHTED),
    Specimen("MLP", "smoothed labels", mlp, vectors, nn.CrossEntropyLoss(label_smoothing=0.1)),
    Specimen("MLP", "a loss of one's own", mlp, vectors, uneven),
    Specimen("Autoencoder", "its input", lambda: mlp(WIDTH), themselves, nn.HuberLoss()),
    Specimen("CNN", "labels", cnn, images),
    Specimen("Group norm before a CNN", "labels", normed_first, images),
    Specimen("MLP on images", "labels", flat_first, images),
    Specimen("CNN, first layer frozen", "labels", frozen_convolution, images),
    Specimen("CNN", "a label for each pixel", segmented, maps, F.cross_entropy),
    Specimen("Conv1d", "labels", convolved, waves),
    Specimen("Small ResNet, group norm", "labels", small_resnet, images),
    Specimen("ResNet-18, group norm", "labels", resnet18, images),
    Specimen("Frozen batch norm", "labels", frozen_batch_norm, images),
    Specimen("LSTM", "labels", lambda: Recurrent(nn.LSTM), series),
    Specimen(
        "LSTM, two layers and dropout",
        "labels",
        lambda: Recurrent(nn.LSTM, num_layers=2, dropout=0.2),
        series,
        draws=True,
    ),
    Specimen(
        "GRU, both directions", "labels", lambda: Recurrent(nn.GRU, bidirectional=True), series
    ),
    Specimen("RNN", "labels", lambda: Recurrent(nn.RNN), series),
    Specimen("LSTM", "the next word", lambda: Words(nn.LSTM), next_words),
    Specimen("GRU", "the next word, padded", lambda: Words(nn.GRU), padded_words),
    Specimen("Attention", "labels", lambda: Attention(0.0), series),
    Specimen("Attention with dropout", "labels", lambda: Attention(0.2), series, draws=True),
    Specimen("Transformer encoder", "labels", lambda: Encoder(0.0), sentences),
    Specimen("Transformer encoder, dropout", "labels", lambda: Encoder(0.2), sentences, draws=True),
    Specimen("GPT, tied weights", "the next word", GPT, next_words),
    Specimen(
        "GPT, tied weights, dropout", "the next word", lambda: GPT(0.2), next_words, draws=True
    ),
    Specimen("LoRA on a frozen GPT", "the next word", adapted, next_words),
    Specimen("Inputs by name", "labels", Named, tokens),
    Specimen("Two inputs", "labels", Towers, pairs),
    Specimen("Weight norm", "labels", normed_weights, vectors),
    Specimen("A hook on the model", "labels", hooked, vectors),
    Specimen("Noise of its own", "labels", Noisy, vectors, draws=True),
    Specimen("A branch on values", "labels", Branching, vectors),
    Specimen("MLP in bfloat16", "labels", half, vectors),
    Specimen("Batch norm", "labels", batch_normed, vectors, refused="running statistics"),
    Specimen("Lazy layers", "labels", lambda: nn.LazyLinear(CLASSES), vectors, refused="Lazy"),
    Specimen("One output", "labels", lambda: nn.Linear(WIDTH, 1), vectors, refused="single output"),
    Specimen(
        "Linear",
        "a number, no loss given",
        lambda: nn.Linear(WIDTH, 1),
        numbers,
        refused="real numbers",
    ),
]
