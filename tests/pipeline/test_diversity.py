"""Novelty against the Schur complement, and spacing against hand-placed candidates."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from pipeline.diversity import Novelty, Spacing


class Joint:
    """A random joint covariance of f over q candidates at m fidelities."""

    def __init__(self, q: int, m: int, seed: int) -> None:
        generator = torch.Generator().manual_seed(seed)
        root = torch.randn(q * m, q * m, generator=generator, dtype=torch.float64)
        self.m, self.k = m, root @ root.T / (q * m)
        self.noise = 0.01 + torch.rand(m, generator=generator, dtype=torch.float64)

    def __call__(self, index: Tensor, fidelity: Tensor) -> Tensor:
        rows = index * self.m + fidelity
        return self.k[rows][:, rows]

    def told(self, index: Tensor, fidelity: Tensor, batch: list[int]) -> Tensor:
        """Variance of the target that each item would explain given the batch, from scratch."""
        own = index * self.m + fidelity
        target = index * self.m + self.m - 1
        noisy = self.k[own[batch]][:, own[batch]] + self.noise[fidelity[batch]].diag()
        k = self.k - self.k[:, own[batch]] @ torch.linalg.solve(noisy, self.k[own[batch]])
        return k[own, target] ** 2 / (k[own, own] + self.noise[fidelity])


@pytest.mark.parametrize("m", [1, 3])
@pytest.mark.parametrize("seed", range(3))
def test_law_novelty_is_what_is_told_given_the_batch(m: int, seed: int) -> None:
    joint = Joint(8, m, seed)
    index = torch.arange(8).repeat_interleave(m)
    fidelity = torch.arange(m).repeat(8)
    novelty = Novelty(index, fidelity, joint.noise, joint)
    first = joint.told(index, fidelity, [])
    assert bool((novelty.log_share() == 0).all())
    batch: list[int] = []
    for item in (1, 5, 0, 7):
        novelty.condition(item)
        batch.append(item)
        rest = [i for i in range(len(index)) if i not in batch]
        expected = (joint.told(index, fidelity, batch) / first).clamp(1e-12, 1.0)
        share = novelty.log_share().exp()
        torch.testing.assert_close(share[rest], expected[rest], rtol=1e-7, atol=1e-11)


def test_at_the_target_without_noise_novelty_is_the_variance_left() -> None:
    joint = Joint(5, 1, 0)
    novelty = Novelty(torch.arange(5), torch.zeros(5, dtype=torch.long), torch.zeros(1), joint)
    novelty.condition(2)
    k = joint.k
    expected = 1 - k[:, 2] ** 2 / (k.diagonal() * k[2, 2])
    others = torch.tensor([0, 1, 3, 4])
    torch.testing.assert_close(novelty.log_share().exp()[others], expected[others])


def test_an_item_that_tells_nothing_of_the_target_is_judged_by_itself() -> None:
    k = torch.tensor([[1.0, 0.8, 0, 0], [0.8, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]]).double()
    # Two candidates; rows of k: cheap, cheap, target, target.
    novelty = Novelty(
        torch.tensor([0, 1]),
        torch.tensor([0, 0]),
        torch.zeros(2, dtype=torch.float64),
        lambda i, m: k[m * 2 + i][:, m * 2 + i],
    )
    novelty.condition(0)
    assert float(novelty.log_share()[1].exp()) == pytest.approx(1 - 0.8**2)


@pytest.mark.parametrize("level", [0.0, 1.0, 1e-200, 1e200])
def test_a_singular_covariance_stays_finite(level: float) -> None:
    noise = torch.zeros(1, dtype=torch.float64)
    novelty = Novelty(
        torch.arange(4),
        torch.zeros(4, dtype=torch.long),
        noise,
        lambda i, _: torch.full((len(i), len(i)), level, dtype=torch.float64),
    )
    for item in range(4):
        novelty.condition(item)
        assert bool(novelty.log_share().isfinite().all())
        assert float(novelty.log_share().max()) <= 0


def test_items_closer_than_the_distance_are_out() -> None:
    place = torch.tensor([0.0, 0.1, 0.3, 0.9], dtype=torch.float64)
    index = torch.tensor([3, 0, 2, 1])
    spacing = Spacing(index, 0.3, lambda a, b: (place[a][:, None] - place[b]).abs())
    assert spacing.are_far(1).tolist() == [True, False, True, False]  # 0.3 apart is far enough


@pytest.mark.parametrize("bad", [0.0, -1.0, math.nan])
def test_a_distance_is_above_zero(bad: float) -> None:
    with pytest.raises(ValueError, match="min_distance: expected a number above 0"):
        Spacing(torch.arange(2), bad, lambda a, b: torch.zeros(len(a), len(b)))
