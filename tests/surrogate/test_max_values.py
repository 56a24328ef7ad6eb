import pytest
import torch

from surrogate.max_values import sample_max_values


def _posterior(n: int) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    mean = torch.randn(n, generator=generator, dtype=torch.float64)
    return mean, 0.2 + torch.rand(n, generator=generator, dtype=torch.float64)


def test_agrees_with_sampled_maxima():
    mean, sd = _posterior(200)
    generator = torch.Generator().manual_seed(2)
    noise = torch.randn(20_000, 200, generator=generator, dtype=torch.float64)
    truth = (mean + sd * noise).max(1).values
    drawn = sample_max_values(mean, sd, 2000, seed=0)
    # fitted at the quartiles: the tails are an approximation
    for p, tolerance in ((0.1, 0.15), (0.25, 0.03), (0.5, 0.03), (0.75, 0.03), (0.9, 0.15)):
        assert float(drawn.quantile(p)) == pytest.approx(float(truth.quantile(p)), abs=tolerance)


def test_same_seed_same_samples_other_seed_other_samples():
    mean, sd = _posterior(30)
    first = sample_max_values(mean, sd, 16, seed=3)
    assert torch.equal(first, sample_max_values(mean, sd, 16, seed=3))
    assert not torch.equal(first, sample_max_values(mean, sd, 16, seed=4))


def test_commutes_with_shift_and_scale():
    mean, sd = _posterior(30)
    first = sample_max_values(mean, sd, 16, seed=3)
    torch.testing.assert_close(
        sample_max_values(1e9 * mean - 5e9, 1e9 * sd, 16, 3), 1e9 * first - 5e9
    )
    torch.testing.assert_close(sample_max_values(1e-9 * mean, 1e-9 * sd, 16, 3), 1e-9 * first)


def test_a_single_certain_point_is_its_own_maximum():
    drawn = sample_max_values(
        torch.tensor([2.0], dtype=torch.float64), torch.tensor([1e-12], dtype=torch.float64), 8, 0
    )
    torch.testing.assert_close(drawn, torch.full((8,), 2.0, dtype=torch.float64))
