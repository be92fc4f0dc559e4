"""The critic's turn, in the same part of a step as the network's that it judges."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from torch import Tensor

from nodes.sdxs.distill import losses
from nodes.sdxs.distill.critic import Critic
from nodes.sdxs.distill.loop import Loop


@contextmanager
def unmoved(critic: Critic) -> Iterator[None]:
    """While it is open, gradients pass through the critic and leave none in it."""
    critic.requires_grad_(False)
    try:
        yield
    finally:
        critic.requires_grad_(True)


def judge(loop: Loop, critic: Critic, *, real: Tensor, made: Tensor) -> None:
    """(5), second term, for the critic: adds a part's gradients; the update is the stage's.

    Args:
        loop: Of the stage.
        critic: Sees every part of a step, as the network that it judges does.
        real: Pictures float N3HW of 0..1, of the teacher.
        made: The same of the student; nothing flows back to it.
    """
    with loop.precision():
        judged = critic(real).float(), critic(made.detach()).float()
    doubt = losses.judging(*judged)
    loop.backward(doubt)
    loop.note(critic=doubt.detach())
