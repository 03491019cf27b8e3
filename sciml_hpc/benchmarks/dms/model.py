"""The two reference networks, both small convolutional ones with large dense layers."""

from __future__ import annotations

from torch import Tensor, nn


class AzimuthNet(nn.Module):
    """Two convolutions and three dense layers, as the SciML suite states them; 11,570,113 parameters at 487 × 195.

    Conv 32 (3 × 3), pool 2, dropout 0.2, conv 64 (3 × 3), pool 2, dense 32, dense 16, one linear output; ReLU. Where
    the publication is silent: convolutions without padding, dropout between the two convolutions.
    """

    def __init__(self, rows: int, columns: int, width: int = 32, dropout: float = 0.2) -> None:
        super().__init__()
        down, across = (((n - 2) // 2 - 2) // 2 for n in (rows, columns))
        self.layers = nn.Sequential(
            nn.Conv2d(1, width, 3),
            nn.ReLU(),
            nn.MaxPool2d(2),
            nn.Dropout(dropout),
            nn.Conv2d(width, 2 * width, 3),
            nn.ReLU(),
            nn.MaxPool2d(2),
            nn.Flatten(),
            nn.Linear(2 * width * down * across, 32),
            nn.ReLU(),
            nn.Linear(32, 16),
            nn.ReLU(),
            nn.Linear(16, 1),
        )

    def forward(self, image: Tensor) -> Tensor:
        """(batch, rows, columns) float → azimuth in periods, any whole number of them added: (batch,)."""
        return self.layers(image[:, None])[:, 0]


class StructureNet(nn.Module):
    """The network of sciml-bench's dms_structure; 44,977,866 parameters at 195 × 487, of them 44,843,520 in one layer.

    It differs in one point: it gives logits, where the original applies softmax and then the binary cross-entropy of
    both outputs. For two classes that is the cross-entropy of the logits, exactly.
    """

    def __init__(self, columns: int, rows: int, width: int = 8, hidden: int = 512, dropout: float = 0.5) -> None:
        super().__init__()
        across, down = (((n - 3) // 2 - 3) // 2 for n in (columns, rows))
        self.layers = nn.Sequential(
            nn.Conv2d(3, width, 4),
            nn.ReLU(),
            nn.MaxPool2d(2),
            nn.BatchNorm2d(width),
            nn.Conv2d(width, 2 * width, 4),
            nn.ReLU(),
            nn.MaxPool2d(2),
            nn.BatchNorm2d(2 * width),
            nn.Flatten(),
            nn.Linear(2 * width * across * down, hidden),
            nn.ReLU(),
            nn.Dropout(dropout),
            nn.Linear(hidden, hidden // 2),
            nn.ReLU(),
            nn.Dropout(dropout),
            nn.Linear(hidden // 2, 2),
        )

    def forward(self, image: Tensor) -> Tensor:
        """(batch, 3, columns, rows) float → logits of monoclinic and tetragonal (batch, 2)."""
        return self.layers(image)
