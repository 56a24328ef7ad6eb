import pytest
import torch
from torch import Tensor

from surrogate.warp import Warp


def _points(q: int, d: int, seed: int) -> Tensor:
    return torch.rand(q, d, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def _wild(d: int, n_blocks: int = 1, seed: int = 0) -> Warp:
    """A warp with weights far larger than training would find."""
    warp = Warp(d, n_blocks, 8, 0.9, seed)
    generator = torch.Generator().manual_seed(seed + 1)
    with torch.no_grad():
        for parameter in warp.parameters():
            noise = torch.randn(parameter.shape, generator=generator, dtype=torch.float64)
            parameter.copy_(30 * noise)
    return warp


def test_it_is_the_identity_before_training():
    x = _points(20, 3, 0)
    assert torch.equal(Warp(3, 2, 8, 0.9, 0)(x), x)


@pytest.mark.parametrize("d", [1, 2, 20])
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_no_distance_shrinks_or_grows_beyond_the_bound(d, seed):
    warp, a, b = _wild(d, seed=seed), _points(200, d, 3), _points(200, d, 4)
    before = (a - b).norm(dim=1)
    after = (warp(a) - warp(b)).norm(dim=1)
    assert (after >= 0.1 * before * (1 - 1e-9)).all()
    assert (after <= 1.9 * before * (1 + 1e-9)).all()


def test_blocks_multiply_the_bound():
    warp, a, b = _wild(3, n_blocks=2), _points(200, 3, 3), _points(200, 3, 4)
    ratio = (warp(a) - warp(b)).norm(dim=1) / (a - b).norm(dim=1)
    assert (ratio >= 0.1**2).all()
    assert (ratio <= 1.9**2).all()


def test_bends_are_the_bounds_and_never_above_the_contraction():
    assert Warp(3, 2, 8, 0.9, 0).bends() == [0.0, 0.0]
    assert _wild(3).bends() == pytest.approx([0.9])


def test_every_parameter_gets_a_gradient():
    warp = _wild(3)
    with torch.no_grad():
        warp.inner.mul_(0.01)
        warp.outer.mul_(0.001)
        warp.shift.mul_(0.01)
    (warp(_points(20, 3, 0)).square().sum() + warp.log_prior(0.1)).backward()
    for parameter in warp.parameters():
        assert (parameter.grad != 0).all()


def test_an_untrained_warp_has_finite_gradients():
    warp = Warp(3, 1, 8, 0.9, 0)
    warp(_points(20, 3, 0)).square().sum().backward()
    assert all(p.grad.isfinite().all() for p in warp.parameters())
    assert (warp.outer.grad != 0).any()


def test_the_prior_is_highest_without_a_warp():
    assert float(Warp(3, 1, 8, 0.9, 0).log_prior(0.1).detach()) == 0.0
    assert float(_wild(3).log_prior(0.1).detach()) < 0.0


def test_seeds_decide():
    assert torch.equal(Warp(3, 1, 8, 0.9, 5).inner, Warp(3, 1, 8, 0.9, 5).inner)
    assert not torch.equal(Warp(3, 1, 8, 0.9, 5).inner, Warp(3, 1, 8, 0.9, 6).inner)
