"""Muon: what it does to a matrix, how far it steps, and what it leaves to AdamW."""

from __future__ import annotations

from typing import Literal

import pytest
import torch
from torch import nn

from nodes.sdxs.distill.optimisers import Muon, is_matrix, optimisers, orthogonalised
from nodes.sdxs.distill.settings import Stage


@pytest.mark.parametrize("shape", [(16, 16), (32, 288), (96, 864)])
def test_orthogonalised_keeps_directions_and_levels_how_strong_they_are(
    shape: tuple[int, int],
) -> None:
    generator = torch.Generator().manual_seed(3)
    rows, columns = shape
    # Singular values from 1 down to a thirtieth of it.
    left = torch.linalg.qr(torch.randn(rows, rows, generator=generator))[0]
    right = torch.linalg.qr(torch.randn(columns, rows, generator=generator))[0]
    strong = torch.logspace(0, -1.5, rows)
    matrix = left * strong @ right.T
    made = orthogonalised(torch.stack([matrix, 100 * matrix.flip(0)]))
    found = torch.linalg.svdvals(made)
    assert found.min() > 0.3
    assert found.max() < 1.3
    # In the basis of its own singular vectors it is diagonal.
    inside = left.T @ made[0] @ right
    assert torch.allclose(inside, torch.diag(inside.diagonal()), atol=1e-3)
    assert (inside.diagonal() > 0).all()


def test_orthogonalised_leaves_nothing_nothing() -> None:
    assert torch.equal(orthogonalised(torch.zeros(2, 16, 20)), torch.zeros(2, 16, 20))


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize(("out", "into"), [(32, 24), (24, 64), (128, 16)])
def test_a_step_is_the_orthogonalised_gradient_at_the_pace_of_adamw(
    layout: torch.memory_format, out: int, into: int
) -> None:
    torch.manual_seed(5)
    layer = nn.Conv2d(into, out, 3, bias=False).to(memory_format=layout)  # type: ignore[call-overload]
    before = layer.weight.detach().clone()
    layer(torch.randn(2, into, 9, 9)).square().mean().backward()
    gradient = layer.weight.grad
    assert gradient is not None
    flat = gradient.flatten(1)
    turned = flat if out <= into * 9 else flat.T
    wanted = orthogonalised(turned[None])[0]
    wanted = (wanted if out <= into * 9 else wanted.T).reshape(before.shape)
    Muon([layer.weight], lr=0.01, weight_decay=0.1).step()
    moved = layer.weight.detach() - before * (1 - 0.01 * 0.1)
    size = 0.01 * 0.2 * max(out, into * 9) ** 0.5
    assert torch.allclose(moved, -size * wanted, atol=1e-5)
    # Which is about what a step of AdamW is.
    assert 0.1 < float(moved.square().mean().sqrt()) / 0.01 < 0.25


def test_all_of_one_shape_at_once_is_each_alone() -> None:
    torch.manual_seed(5)
    shapes = [(20, 30), (30, 20), (20, 30), (16, 16)]
    values = [(torch.randn(shape), torch.randn(shape)) for shape in shapes]

    def stepped(given: list[tuple[torch.Tensor, torch.Tensor]]) -> list[torch.Tensor]:
        weights = [nn.Parameter(weight.clone()) for weight, _ in given]
        optimiser = Muon(weights, lr=0.1)
        for _ in range(3):
            for weight, (_, gradient) in zip(weights, given, strict=True):
                weight.grad = gradient.clone()
            optimiser.step()
        return [weight.detach() for weight in weights]

    together = stepped(values)
    for made, one in zip(together, values, strict=True):
        assert torch.allclose(made, stepped([one])[0], atol=1e-6)


def test_a_weight_without_a_gradient_stays() -> None:
    weight = nn.Parameter(torch.ones(16, 16))
    Muon([weight], lr=1.0, weight_decay=1.0).step()
    assert torch.equal(weight.detach(), torch.ones(16, 16))


def test_what_is_no_matrix_is_left_to_adamw() -> None:
    network = nn.ModuleDict(
        {
            "first": nn.Conv2d(3, 32, 3),
            "narrow": nn.Conv2d(1, 32, 3),
            "last": nn.Conv2d(32, 3, 3),
            "norm": nn.GroupNorm(8, 32),
            "linear": nn.Linear(64, 16),
        }
    )
    tokens = nn.Parameter(torch.zeros(20, 20, 20))
    frozen = nn.Parameter(torch.zeros(20, 20), requires_grad=False)
    parameters = [*network.parameters(), tokens, frozen]
    muon, adamw = optimisers(parameters, Stage(steps=1, optimiser="muon"))
    taken = {id(one) for one in muon.param_groups[0]["params"]}
    assert taken == {id(network["first"].weight), id(network["linear"].weight)}
    rest = {id(one) for one in adamw.param_groups[0]["params"]}
    assert not rest & taken
    assert rest | taken == {id(one) for one in parameters} - {id(frozen)}
    assert is_matrix(torch.zeros(16, 16))
    assert not is_matrix(torch.zeros(15, 16))


@pytest.mark.parametrize("kind", ["adamw", "muon"])
def test_a_convolution_learns_a_filter(kind: Literal["adamw", "muon"]) -> None:
    torch.manual_seed(5)
    teacher = nn.Conv2d(16, 16, 3, padding=1)
    student = nn.Conv2d(16, 16, 3, padding=1)
    together = optimisers(student.parameters(), Stage(steps=1, optimiser=kind, rate=0.01))
    assert len(together) == (2 if kind == "muon" else 1)
    errors = []
    for _ in range(150):
        seen = torch.randn(4, 16, 8, 8)
        error = (student(seen) - teacher(seen)).square().mean()
        error.backward()
        for optimiser in together:
            optimiser.step()
            optimiser.zero_grad()
        errors.append(float(error.detach()))
    assert errors[-1] < 0.05 * errors[0]
