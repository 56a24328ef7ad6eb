import math

import pytest
import torch
from botorch.acquisition.analytic import _log_ei_helper
from mpmath import mp

from surrogate.log_normal import (
    log_expected_improvement,
    log_minus_log1m_exp,
    log_softplus,
    log_truncation_information,
    log_truncation_loss,
)

ARGUMENTS = [-1e5, -10001.0, -9999.0, -1001.0, -999.0, -300.0, -40.0, -5.0, -1.0001, -0.9999]
ARGUMENTS += [0.0, 0.5, 3.0, 9.0, 40.0, 300.0]


def _at(u: float) -> torch.Tensor:
    return torch.tensor([u], dtype=torch.float64)


@pytest.fixture(autouse=True)
def _precision():
    with mp.workdps(60):
        yield


@pytest.mark.parametrize("u", ARGUMENTS)
def test_log_expected_improvement_agrees_with_sixty_digits(u):
    # mpmath's ncdf loses digits by cancellation far left unless erfc is asked directly
    exact = mp.log(mp.npdf(u) + mp.mpf(u) * mp.erfc(-mp.mpf(u) / mp.sqrt(2)) / 2)
    assert float(log_expected_improvement(_at(u))) == pytest.approx(float(exact), rel=1e-9)


@pytest.mark.parametrize("u", ARGUMENTS)
def test_log_truncation_loss_agrees_with_sixty_digits(u):
    cdf = mp.erfc(-mp.mpf(u) / mp.sqrt(2)) / 2
    h = mp.npdf(u) / cdf
    exact = mp.log(h * (u + h)) if u != 0 else mp.log(h * h)
    got = float(log_truncation_loss(_at(u)))
    assert got == pytest.approx(float(exact), rel=1e-9, abs=1e-9)


def test_log_truncation_information_agrees_with_many_digits():
    for u in ARGUMENTS:
        with mp.workdps(60 + int(min(u, 40.0) ** 2 if u > 0 else 0)):
            if u > 40:
                # h u / 2 and cdf(-u) alone are left
                exact = mp.log(mp.npdf(u) * mp.mpf(u) / 2 + mp.erfc(mp.mpf(u) / mp.sqrt(2)) / 2)
            else:
                cdf = mp.erfc(-mp.mpf(u) / mp.sqrt(2)) / 2
                exact = mp.log(mp.mpf(u) * mp.npdf(u) / cdf / 2 - mp.log(cdf))
            found = float(log_truncation_information(_at(u)))
            assert found == pytest.approx(float(exact), rel=1e-9), u


def test_log_expected_improvement_agrees_with_botorch():
    u = torch.linspace(-1e3, 30, 5001, dtype=torch.float64)
    torch.testing.assert_close(log_expected_improvement(u), _log_ei_helper(u))


@pytest.mark.parametrize("u", [-1e300, -1e150, 1e150, 1e300])
def test_absurd_arguments_stay_finite(u):
    assert log_expected_improvement(_at(u)).isfinite().all()
    assert log_truncation_loss(_at(u)).isfinite().all()
    assert log_truncation_information(_at(u)).isfinite().all()


def test_all_are_monotone_across_their_seams():
    u = torch.cat([torch.linspace(-2e4, -1e3, 4001), torch.linspace(-999, 30, 4001)]).double()
    assert (log_expected_improvement(u).diff() > 0).all()
    # far left the loss is 1 to within rounding: not increasing there, strictly falling later
    loss = log_truncation_loss(u)
    assert (loss.diff() <= 1e-9).all()
    assert (loss[u > -300].diff() < 0).all()
    assert (log_truncation_information(u).diff() < 0).all()


@pytest.mark.parametrize("s", [-1e5, -700.0, -41.0, -39.0, -1.0, -0.693, -0.694, -1e-3, -1e-12])
def test_log_minus_log1m_exp_agrees_with_sixty_digits(s):
    exact = mp.log(-mp.log1p(-mp.exp(mp.mpf(s)))) if s > -100 else mp.mpf(s)
    assert float(log_minus_log1m_exp(_at(s))) == pytest.approx(float(exact), rel=1e-9)


def test_log_minus_log1m_exp_is_finite_at_certainty():
    assert float(log_minus_log1m_exp(_at(0.0))) == pytest.approx(
        math.log(15 * math.log(10)), rel=1e-3
    )


@pytest.mark.parametrize("u", [-1e4, -41.0, -39.0, -1.0, 0.0, 5.0, 1e4])
def test_log_softplus_agrees_with_sixty_digits(u):
    exact = mp.log(mp.log1p(mp.exp(mp.mpf(u))))
    assert float(log_softplus(_at(u))) == pytest.approx(float(exact), rel=1e-12)
