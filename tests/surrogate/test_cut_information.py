import math

import pytest
import torch
from scipy import integrate, stats

from surrogate.cut_information import log_cut_information
from surrogate.log_normal import log_truncation_information

SQUARED_CORRELATIONS = [1e-6, 0.49, 0.51, 0.999]


def _found(u: float, rho2: float) -> float:
    tensors = (torch.tensor([value], dtype=torch.float64) for value in (u, math.log(rho2)))
    return float(log_cut_information(*tensors))


def _exact(u: float, rho2: float) -> float:
    """Entropy of a normal less that of the observation, by adaptive quadrature."""
    rho, s = math.sqrt(rho2), math.sqrt(1 - rho2)

    def share(z: float) -> float:
        log_w = stats.norm.logcdf((u - rho * z) / s) - stats.norm.logcdf(u)
        return stats.norm.pdf(z) * (math.exp(log_w) * log_w - math.expm1(log_w))

    seam = [z for z in ((u + k * s) / rho for k in (-3, 0, 3)) if abs(z) < 11]
    kept, _ = integrate.quad(share, -12, 12, points=seam or None, limit=200, epsabs=1e-15)
    h = math.exp(stats.norm.logpdf(u) - stats.norm.logcdf(u))
    return math.log(rho2 * u * h / 2 + kept)


@pytest.mark.parametrize("rho2", SQUARED_CORRELATIONS)
def test_agrees_with_adaptive_quadrature(rho2):
    for u in (-5.5, -1.0, 1.5, 3.9):
        assert _found(u, rho2) == pytest.approx(_exact(u, rho2), abs=1e-5), u


@pytest.mark.parametrize("rho2", SQUARED_CORRELATIONS)
def test_is_near_beyond_the_range_of_the_quadrature(rho2):
    for u in (-9.0, 5.0):
        assert _found(u, rho2) == pytest.approx(_exact(u, rho2), abs=0.07), u


@pytest.mark.parametrize("u", [-30.0, -3.0, 0.0, 3.0])
def test_an_exact_observation_tells_what_the_cut_does(u):
    exact = float(log_truncation_information(torch.tensor([u], dtype=torch.float64)))
    assert _found(u, 1.0) == pytest.approx(exact, abs=1e-4 if u > -6 else 0.3)


def test_grows_with_the_correlation_and_falls_with_the_distance():
    u = torch.linspace(-50, 50, 301, dtype=torch.float64)[:, None]
    log_rho2 = torch.linspace(-20, 0, 41, dtype=torch.float64)[:-1]
    found = log_cut_information(u.expand(-1, 40), log_rho2)
    assert found.isfinite().all()
    assert (found.diff(dim=1) > 0).all()
    assert (found.diff(dim=0) <= 1e-9).all()
