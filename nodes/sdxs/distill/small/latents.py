"""The latents that the teacher works in: those that the finished draft's decoder paints from."""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from nodes.sdxs.distill.targets import blended
from nodes.sdxs.network import FOLD, TIMESTEP, Network, squash


@dataclass(frozen=True)
class Drafted:
    """What the draft makes of sources.

    Attributes:
        shallow: The first layer's features of the sources, float N × width × H/2 × W/2.
        source: Their latents u, float N × latent channels × H/4 × W/4.
        latent: What the draft paints from, before it is squashed; the same shape.
        painted: The draft's pictures, float N3HW of about 0..1.
    """

    shallow: Tensor
    source: Tensor
    latent: Tensor
    painted: Tensor


class Autoencoder(nn.Module):
    """The draft, frozen, and an encoder that writes latents for styled pictures.

    The draft's decoder paints from latents that nothing but its own U-Net has written, and those
    of its encoder mean little to it. So a styled picture's latent is the draft's, corrected by how
    far the encoder E sees the picture from the draft's: squash(draft + E(picture) − E(painted)).
    The draft's own picture has exactly the latent that it was painted from, and what a teacher has
    to learn is what the draft has left out.

    Args:
        draft: Finished; it is frozen, and its encoder is where E begins.
    """

    def __init__(self, draft: Network) -> None:
        super().__init__()
        self.draft = draft.eval().requires_grad_(False)
        encoder: Any = copy.deepcopy(draft.vae.encoder)
        self.encoder = encoder.requires_grad_(True)

    @torch.no_grad()
    def drafted(self, source: Tensor, *, shares: Tensor, paper: Tensor) -> Drafted:
        """What the draft makes of sources.

        Args:
            source: float N3HW of 0..1.
            shares: Of the styles, float N × styles.
            paper: float N × NOISE_CHANNELS × H/4 × W/4.
        """
        shallow, latent = self.draft.encode(source)
        inputs, tokens = torch.cat([latent, paper], 1), blended(self.draft.tokens, shares)
        added = self.draft.unet(inputs, TIMESTEP, tokens, return_dict=False)[0]
        painted = self.draft.decode(squash(latent + added), shallow)
        return Drafted(shallow, latent, latent + added, painted)

    def features(self, picture: Tensor) -> list[Tensor]:
        """What E sees in a picture: its first layer's features, and what it ends with.

        Args:
            picture: float N3HW of 0..1.

        Returns:
            float N × width × H/2 × W/2, and N × latent channels × H/4 × W/4.
        """
        first, *rest = self.encoder.layers
        shallow = first(functional.pixel_unshuffle(picture, FOLD))
        latent = shallow
        for layer in rest:
            latent = layer(latent)
        return [shallow, latent]

    def write(self, picture: Tensor, drafted: Drafted) -> Tensor:
        """The latent, squashed, of styled pictures float N3HW of the sources of `drafted`."""
        seen, known = self.features(picture)[1], self.features(drafted.painted)[1]
        return squash(drafted.latent + seen - known)

    def read(self, latent: Tensor, drafted: Drafted) -> Tensor:
        """The picture, float N3HW, of a squashed latent, over the sources of `drafted`."""
        return self.draft.decode(latent, drafted.shallow)
