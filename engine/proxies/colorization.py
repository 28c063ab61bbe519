"""Colorization as a proxy task: from grey to colour histograms, on hypercolumns (Larsson et al. 2016, 2017)."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from engine.config.schema import ProxyConfig
from engine.data.pipeline import normalise
from engine.models.heads import init_head
from engine.models.hypercolumn import sample_columns
from engine.models.vgg import Backbone
from engine.proxies.task import Task

HUE_WEIGHT = 5.0
"""Weight of the hue loss per unit of chroma."""
EDGE = 32
"""Distance that sampled pixels keep from the crop's border, pixels, at crops of 256 and more."""


def hue_and_chroma(rgb: Tensor) -> tuple[Tensor, Tensor]:
    """Hue in [0, 1) as in HSV and chroma = max - min in [0, 1], of values (..., 3) in [0, 1].

    The hue of grey is 0; its weight in the loss is 0 too.
    """
    high, arg = rgb.max(dim=-1)
    chroma = high - rgb.min(dim=-1).values
    red, green, blue = rgb.unbind(dim=-1)
    safe = torch.where(chroma > 0, chroma, 1.0)
    sectors = torch.stack([(green - blue) / safe, 2 + (blue - red) / safe, 4 + (red - green) / safe], dim=-1)
    hue = sectors.gather(-1, arg.unsqueeze(-1)).squeeze(-1) / 6
    return torch.where(chroma > 0, hue % 1.0, 0.0), chroma


def to_bins(values: Tensor, bins: int) -> Tensor:
    """Uniform bins of [0, 1]: int64 in 0 .. bins - 1; 1 itself falls into the last."""
    return (values * bins).long().clamp_(0, bins - 1)


class Colorization(Task):
    """Predicts the hue and the chroma of sampled pixels from the grey image.

    Loss = mean over pixels of CE(chroma) + 5 * chroma * CE(hue): grey pixels say nothing about hue. Targets are the
    pixel's own bins (hard), as in the authors' multi-network code, ``selfsup/multi/methods/colorize_hypercolumn.py``
    (github.com/gustavla/self-supervision): 32 bins each, hidden layer of 1024 units with dropout 0.5.

    The network never sees colour: a gray backbone is fed the mean of R, G and B; an rgb backbone is fed that value in
    all three channels, normalised like any image, so that its weights fit what follows.
    """

    def __init__(
        self, config: ProxyConfig, backbone: Backbone, generator: torch.Generator | None = None, classes: int = 0
    ) -> None:
        super().__init__()
        self.config = config
        self.backbone = backbone
        self.hidden = nn.Linear(sum(backbone.hyper_channels), config.head_channels)
        self.hue = nn.Linear(config.head_channels, config.hue_bins)
        self.chroma = nn.Linear(config.head_channels, config.chroma_bins)
        init_head(self.hidden, backbone.head_std, generator)
        for output in (self.hue, self.chroma):
            nn.init.zeros_(output.weight)
            nn.init.zeros_(output.bias)

    def network_input(self, rgb: Tensor) -> Tensor:
        """Colourless network input (B, C, h, w) from uint8 (B, 3, h, w)."""
        if self.backbone.in_channels == 1:
            return normalise(rgb, "gray")
        gray = rgb.to(torch.float32).mean(dim=1, keepdim=True)
        return normalise(gray.expand(-1, 3, -1, -1), "rgb")

    def predict(self, rgb: Tensor, ys: Tensor, xs: Tensor) -> tuple[Tensor, Tensor]:
        """Scores of the hue bins and of the chroma bins, (B, P, bins) each, at pixels (B, P)."""
        columns = sample_columns(self.backbone.hyper(self.network_input(rgb)), ys, xs)
        hidden = F.dropout(F.relu(self.hidden(columns)), 0.5, self.training)
        return self.hue(hidden), self.chroma(hidden)

    def forward(
        self, rgb: Tensor, generator: torch.Generator, targets: Tensor | None = None
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """``loss``."""
        return self.loss(rgb, generator)

    def loss(self, rgb: Tensor, generator: torch.Generator) -> tuple[Tensor, dict[str, Tensor]]:
        """Loss on random pixels of a batch.

        Args:
            rgb: uint8 (B, 3, h, w).
            generator: draws the pixels.

        Returns:
            The scalar loss, and metrics as scalar tensors without gradient (still on the device).
        """
        ys, xs = self._pixels(rgb, generator)
        hue_scores, chroma_scores = self.predict(rgb, ys, xs)
        image = torch.arange(len(rgb), device=rgb.device)[:, None]
        hue, chroma = hue_and_chroma(rgb.permute(0, 2, 3, 1)[image, ys, xs].to(torch.float32) / 255)
        chroma_bin = to_bins(chroma, self.config.chroma_bins)
        hue_loss = _cross_entropy(hue_scores, to_bins(hue, self.config.hue_bins))
        hue_loss = (HUE_WEIGHT * chroma * hue_loss).mean()
        chroma_loss = _cross_entropy(chroma_scores, chroma_bin).mean()
        with torch.no_grad():
            hits = (chroma_scores.argmax(dim=2) == chroma_bin).float().mean()
        metrics = {"loss_hue": hue_loss.detach(), "loss_chroma": chroma_loss.detach(), "chroma_accuracy": hits}
        return hue_loss + chroma_loss, metrics

    def _pixels(self, rgb: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """Uniform pixels (B, P) that keep off the border: 32 pixels, or an eighth of a smaller crop."""
        batch, _, height, width = rgb.shape
        drawn = []
        for side in (height, width):
            edge = min(EDGE, side // 8)
            shape = (batch, self.config.pixels)
            drawn.append(torch.randint(edge, side - edge, shape, generator=generator, device=generator.device))
        return drawn[0].to(rgb.device), drawn[1].to(rgb.device)


def _cross_entropy(scores: Tensor, target: Tensor) -> Tensor:
    """Per pixel (B, P), in float32 whatever the precision of the scores (B, P, bins).

    Flattened, because the multi-dimensional form has no deterministic CUDA kernel.
    """
    flat = F.cross_entropy(scores.float().flatten(0, 1), target.flatten(), reduction="none")
    return flat.view_as(target)
