"""The discriminator of the adversarial losses: small, convolutional, with spectral norms."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn.utils.parametrizations import spectral_norm


class Critic(nn.Module):
    """Judges overlapping patches of a picture (Isola et al., 2017; Miyato et al., 2018).

    Args:
        channels: Of what it sees: a picture, or a picture beside its source.
        width: Of the first layer.
        halvings: How many times the resolution is halved.
    """

    def __init__(self, channels: int, *, width: int = 24, halvings: int = 3) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for index in range(halvings):
            wide = width * 2**index
            layers += [
                spectral_norm(nn.Conv2d(channels, wide, 4, stride=2, padding=1)),
                nn.LeakyReLU(0.2),
            ]
            channels = wide
        self.layers = nn.Sequential(*layers, spectral_norm(nn.Conv2d(channels, 1, 3, padding=1)))

    def forward(self, pictures: Tensor) -> Tensor:
        """Float NCHW of 0..1 to judgements N1hw, high for what seems real."""
        judged: Tensor = self.layers(pictures * 2 - 1)
        return judged
