import json

import pytest
import torch
from torch import Tensor

from surrogate import fitting
from surrogate.auto import Auto
from surrogate.gp import GP, MultiFidelityGP


def _data(n: int, d: int = 2) -> tuple[Tensor, Tensor, Tensor]:
    x = torch.rand(400, d, generator=torch.Generator().manual_seed(0), dtype=torch.float64)[:n]
    return x, torch.arange(n) % 2, torch.sin(7 * x).prod(1) + 0.2 * (torch.arange(n) % 2)


@pytest.fixture
def small_screen(monkeypatch) -> None:
    """Starts compete on 20 observations, so that 30 are already many."""
    monkeypatch.setattr(fitting, "N_SCREEN", 20)
    monkeypatch.setattr("surrogate.warm.N_SCREEN", 20)


def _fitted(model, n: int, state=None, d: int = 2):
    if state is not None:
        model.warm_start(json.loads(json.dumps(state)))
    model.fit(*_data(n, d), 2, 0)
    return model


@pytest.fixture
def first(small_screen) -> MultiFidelityGP:
    return _fitted(MultiFidelityGP(), 40)


def _query() -> Tensor:
    return torch.rand(50, 2, generator=torch.Generator().manual_seed(9), dtype=torch.float64)


@pytest.mark.parametrize("n", [40, 60])
def test_a_warm_fit_is_the_fit_afresh_up_to_the_optimisers_tolerance(first, n):
    cold = _fitted(MultiFidelityGP(), n)
    warm = _fitted(MultiFidelityGP(), n, first.state())
    assert warm.summary()["is_warm_start"]
    assert not cold.summary()["is_warm_start"]
    figures = [m.summary()["log_posterior_per_observation"] for m in (warm, cold)]
    assert figures[0] > figures[1] - 1e-3
    sd = cold.predict(_query(), 1)[1]
    difference = (warm.predict(_query(), 1)[0] - cold.predict(_query(), 1)[0]).abs()
    assert (difference < 0.2 * sd + 1e-3).all()


def test_it_takes_fewer_evaluations(first, monkeypatch):
    counts = []
    original = fitting.negative_log_likelihood

    def counted(*args):
        counts[-1] += 1
        return original(*args)

    monkeypatch.setattr(fitting, "negative_log_likelihood", counted)
    for state in (None, first.state()):
        counts.append(0)
        _fitted(MultiFidelityGP(), 44, state)
    assert counts[1] < 0.5 * counts[0]


def test_it_is_deterministic_and_used_once(first):
    one, other = (_fitted(MultiFidelityGP(), 60, first.state()) for _ in range(2))
    assert torch.equal(one.predict(_query(), 1)[0], other.predict(_query(), 1)[0])
    assert one.state() == other.state()
    one.fit(*_data(60), 2, 0)
    assert not one.summary()["is_warm_start"]


def test_afresh_once_the_data_have_doubled(first):
    second = _fitted(MultiFidelityGP(), 60, first.state())
    assert second.state()["n_observations"] == 40
    third = _fitted(MultiFidelityGP(), 81, second.state())
    assert not third.summary()["is_warm_start"]
    assert third.state()["n_observations"] == 81


def test_few_observations_and_other_spaces_are_fitted_afresh(first):
    few = _fitted(MultiFidelityGP(), 20, first.state())
    assert not few.summary()["is_warm_start"]
    wider = _fitted(MultiFidelityGP(), 40, first.state(), d=3)
    assert not wider.summary()["is_warm_start"]
    uncorrelated = _fitted(GP(), 60, first.state())
    assert not uncorrelated.summary()["is_warm_start"]


def test_auto_hands_it_on_to_the_same_kind_only(small_screen):
    auto = _fitted(Auto(max_exact=60), 50)
    state = auto.state()
    assert state["kind"] == "multi_fidelity_gp"
    assert _fitted(Auto(max_exact=60), 60, state).summary()["is_warm_start"]
    deep = _fitted(Auto(max_exact=50), 60, state)
    assert deep.summary()["chosen"] == "deep_kernel"
    assert deep.state() == {"kind": "deep_kernel", "state": {}}


@pytest.mark.parametrize("model", [MultiFidelityGP, Auto])
def test_what_is_no_state_is_named(model):
    with pytest.raises(ValueError, match=r"expected a state .* got \['lengthscale'\]"):
        model().warm_start({"lengthscale": 1.0})
    model().warm_start({})
