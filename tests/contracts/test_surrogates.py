"""What every registered surrogate must do, whatever it is made of."""

import json
from collections.abc import Callable
from functools import cache
from importlib import import_module

import pytest
import torch
from torch import Tensor

from surrogate import ACQUISITIONS, SURROGATES
from surrogate.acquisition import Acquisition
from surrogate.surrogate import Surrogate

Data = tuple[Tensor, Tensor, Tensor]


def _class(reference: str) -> type:
    module, name = reference.split(":")
    return getattr(import_module(module), name)


def _data(counts: tuple[int, ...], d: int = 3, seed: int = 0) -> Data:
    """`counts[j]` observations at fidelity j of smooth, related functions."""
    generator = torch.Generator().manual_seed(seed)
    fidelities = torch.arange(len(counts)).repeat_interleave(torch.tensor(counts))
    x = torch.rand(len(fidelities), d, generator=generator, dtype=torch.float64)
    y = torch.sin(3 * x).sum(1) * (1 + fidelities) - 10.0 * fidelities
    return x, fidelities, y


def _query(n: int = 17, d: int = 3) -> Tensor:
    return torch.rand(n, d, generator=torch.Generator().manual_seed(99), dtype=torch.float64)


@pytest.fixture(params=sorted(SURROGATES))
def make(request) -> Callable[[], Surrogate]:
    return _class(SURROGATES[request.param])


def _fit(make, data: Data, m: int, seed: int = 0) -> Surrogate:
    surrogate = make()
    assert surrogate.fit(*data, m, seed) is None
    return surrogate


@cache
def _fitted_once(make: Callable[[], Surrogate]) -> Surrogate:
    return _fit(make, _data((12, 8, 6)), 3)


@pytest.fixture
def fitted(make) -> Surrogate:
    """A fitted surrogate that no test changes."""
    return _fitted_once(make)


def _assert_honest(surrogate: Surrogate, query: Tensor, m: int) -> None:
    """Every answer has its shape, is float64 and finite, and the sd is positive."""
    q = len(query)
    for fidelity in range(m):
        mean, sd = surrogate.predict(query, fidelity)
        assert mean.shape == sd.shape == (q,)
        assert mean.dtype == sd.dtype == torch.float64
        assert mean.isfinite().all()
        assert sd.isfinite().all()
        assert (sd > 0).all()
    covariance = surrogate.fidelity_covariance(query)
    assert covariance.shape == (q, m, m)
    assert covariance.isfinite().all()
    assert surrogate.noise_variance().shape == (m,)
    assert (surrogate.noise_variance() > 0).all()


def test_shapes_and_types(fitted):
    assert fitted.n_fidelities == 3
    _assert_honest(fitted, _query(), 3)
    _assert_honest(fitted, _query(0), 3)
    _assert_honest(fitted, _query(1), 3)


def test_nothing_drags_a_gradient(fitted):
    mean, sd = fitted.predict(_query(), 2)
    tensors = [mean, sd, fitted.fidelity_covariance(_query()), fitted.noise_variance()]
    assert not any(tensor.requires_grad for tensor in tensors)


def test_same_data_and_seed_same_bits(make):
    first, second = (_fit(make, _data((12, 8, 6)), 3, seed=4) for _ in range(2))
    for fidelity in range(3):
        for a, b in zip(
            first.predict(_query(), fidelity), second.predict(_query(), fidelity), strict=True
        ):
            assert torch.equal(a, b)
    assert torch.equal(first.fidelity_covariance(_query()), second.fidelity_covariance(_query()))
    assert first.summary() == second.summary()


def test_fitting_again_forgets_what_was_learned_before(make):
    again = _fit(make, _data((3, 2, 9), seed=5), 3)
    again.fit(*_data((12, 8, 6)), 3, 0)
    fresh = _fit(make, _data((12, 8, 6)), 3)
    assert torch.equal(again.predict(_query(), 2)[0], fresh.predict(_query(), 2)[0])


def test_global_random_state_is_neither_read_nor_moved(make):
    torch.manual_seed(1)
    before = torch.get_rng_state()
    first = _fit(make, _data((12, 8, 6)), 3).predict(_query(), 2)[0]
    assert torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(2)
    assert torch.equal(_fit(make, _data((12, 8, 6)), 3).predict(_query(), 2)[0], first)


def test_covariance_is_symmetric_positive_and_agrees_with_predict(fitted):
    query, fidelities = _query(30), torch.arange(30) % 3
    covariance = fitted.covariance(query, fidelities, query, fidelities)
    torch.testing.assert_close(covariance, covariance.T)
    scale = covariance.diagonal().max()
    assert torch.linalg.eigvalsh(covariance).min() > -1e-9 * scale
    for fidelity in range(3):
        mine = fidelities == fidelity
        sd = fitted.predict(query[mine], fidelity)[1]
        torch.testing.assert_close(covariance.diagonal()[mine], sd**2, rtol=1e-6, atol=1e-10)


def test_fidelity_covariance_agrees_with_covariance_and_predict(fitted):
    query = _query()
    covariance = fitted.fidelity_covariance(query)
    torch.testing.assert_close(covariance, covariance.mT)
    for i in range(3):
        sd = fitted.predict(query, i)[1]
        torch.testing.assert_close(covariance[:, i, i], sd**2, rtol=1e-6, atol=1e-10)
        for j in range(3):
            ones = torch.ones(len(query), dtype=torch.int64)
            pairs = fitted.covariance(query, i * ones, query, j * ones).diagonal()
            torch.testing.assert_close(covariance[:, i, j], pairs, rtol=1e-6, atol=1e-9)


def test_many_queries_agree_with_few(fitted):
    query = _query(5000)
    mean, sd = fitted.predict(query, 2)
    some = torch.tensor([0, 2047, 2048, 4999])
    few = fitted.predict(query[some], 2)
    torch.testing.assert_close(mean[some], few[0])
    torch.testing.assert_close(sd[some], few[1])
    torch.testing.assert_close(
        fitted.fidelity_covariance(query)[some], fitted.fidelity_covariance(query[some])
    )


def test_the_order_of_observations_changes_nothing(make):
    x, fidelities, y = _data((12, 8, 6))
    order = torch.randperm(26, generator=torch.Generator().manual_seed(3))
    shuffled = _fit(make, (x[order], fidelities[order], y[order]), 3)
    straight = _fit(make, (x, fidelities, y), 3)
    torch.testing.assert_close(shuffled.predict(_query(), 2), straight.predict(_query(), 2))


@pytest.mark.parametrize(("factor", "shift"), [(3.0, -7.0), (1e-9, 0.0), (1e9, 1e9)])
def test_predictions_commute_with_shift_and_scale(make, factor, shift):
    x, fidelities, y = _data((12, 8, 6))
    mean, sd = _fit(make, (x, fidelities, y), 3).predict(_query(), 2)
    moved = _fit(make, (x, fidelities, factor * y + shift), 3).predict(_query(), 2)
    torch.testing.assert_close((moved[0] - shift) / factor, mean, rtol=1e-3, atol=1e-3)
    torch.testing.assert_close(moved[1] / factor, sd, rtol=1e-2, atol=1e-3)


def test_the_observed_target_is_learned(fitted):
    x, fidelities, y = _data((12, 8, 6))
    target = fidelities == 2
    mean, sd = fitted.predict(x[target], 2)
    assert (mean - y[target]).abs().max() < 0.3 * y[target].std()
    far = fitted.predict(_query() + 5.0, 2)[1]
    assert sd.max() < far.min()


def test_data_without_the_target_are_survived(make):
    _assert_honest(_fit(make, _data((10, 5, 0)), 3), _query(), 3)


@pytest.mark.parametrize(
    "counts", [(0, 0, 1), (1, 0, 0), (0, 1, 1), (9, 1, 0), (9, 0, 1), (9, 2, 2), (0, 0, 9)]
)
def test_few_observations_are_enough(make, counts):
    _assert_honest(_fit(make, _data(counts), 3), _query(), 3)


@pytest.mark.parametrize("m", [1, 2, 4])
def test_any_number_of_fidelities(make, m):
    _assert_honest(_fit(make, _data((6,) * m), m), _query(), m)


@pytest.mark.parametrize("value", [0.0, 3.0, -1e9, 1e-9])
def test_constant_values(make, value):
    x, fidelities, y = _data((8, 5, 4))
    surrogate = _fit(make, (x, fidelities, torch.full_like(y, value)), 3)
    _assert_honest(surrogate, _query(), 3)
    mean, sd = surrogate.predict(_query(), 2)
    assert ((mean - value).abs() <= sd + 1e-12).all()


def test_duplicated_points_with_different_values(make):
    x, fidelities, y = _data((6, 6, 6))
    noisy = torch.cat([y, y + 0.1])
    surrogate = _fit(make, (torch.cat([x, x]), torch.cat([fidelities] * 2), noisy), 3)
    _assert_honest(surrogate, _query(), 3)


def test_all_observations_at_one_point(make):
    _, fidelities, y = _data((4, 4, 4))
    surrogate = _fit(make, (torch.zeros(12, 3).double(), fidelities, y), 3)
    _assert_honest(surrogate, _query(), 3)


@pytest.mark.parametrize("outlier", [1e6, -1e12])
def test_heavy_outliers_at_a_cheap_fidelity_do_not_blind_it(make, outlier):
    x, fidelities, y = _data((20, 0, 15))
    spoiled = y.clone()
    spoiled[:2] = outlier
    surrogate = _fit(make, (x, fidelities, spoiled), 3)
    _assert_honest(surrogate, _query(), 3)
    clean = _fit(make, (x, fidelities, y), 3).predict(_query(), 2)
    error = (surrogate.predict(_query(), 2)[0] - clean[0]).abs().mean()
    assert error < 0.5 * y[fidelities == 2].std()


def test_an_outlier_at_the_target_is_survived(make):
    x, fidelities, y = _data((6, 6, 10))
    y[-1] = 1e9
    _assert_honest(_fit(make, (x, fidelities, y), 3), _query(), 3)


def test_values_that_are_not_finite_are_left_out(make):
    x, fidelities, y = _data((12, 8, 6))
    extra = torch.tensor([torch.nan, torch.inf, -torch.inf], dtype=torch.float64)
    more = (torch.cat([x, x[:3]]), torch.cat([fidelities, fidelities[-3:]]), torch.cat([y, extra]))
    with_extra = _fit(make, more, 3).predict(_query(), 2)
    torch.testing.assert_close(with_extra, _fit(make, (x, fidelities, y), 3).predict(_query(), 2))


def test_features_of_any_unit(make):
    x, fidelities, y = _data((12, 8, 6))
    unit = torch.tensor([1e-9, 1.0, 1e9], dtype=torch.float64)
    surrogate = _fit(make, (x * unit + unit, fidelities, y), 3)
    expected = _fit(make, (x, fidelities, y), 3).predict(_query(), 2)
    got = surrogate.predict(_query() * unit + unit, 2)
    torch.testing.assert_close(got, expected, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("n", [0, 3])
def test_no_finite_value_is_an_error(make, n):
    x, fidelities, y = _data((1, 1, 1))
    nothing = (x[:n], fidelities[:n], torch.full_like(y[:n], torch.nan))
    with pytest.raises(ValueError, match="finite"):
        make().fit(*nothing, 3, 0)


def test_summary_is_json_with_the_correlations(fitted):
    summary = json.loads(json.dumps(fitted.summary()))
    correlations = summary["correlation_with_target"]
    assert len(correlations) == 3
    assert correlations[-1] == pytest.approx(1.0)
    assert all(-1.0 <= value <= 1.0 + 1e-12 for value in correlations)


BLOCKS = (("continuous", 1), ("categorical", 3), *((("letter", 4),) * 5), ("set", 4))


def _spelled(n: int) -> Tensor:
    """Rows of a number, a choice, a word and a set, as `BLOCKS` say."""
    generator = torch.Generator().manual_seed(1)
    parts = [torch.rand(n, 1, generator=generator, dtype=torch.float64)]
    for kind, width in BLOCKS[1:]:
        if kind == "set":
            parts.append((torch.rand(n, width, generator=generator) > 0.5).double())
        else:
            chosen = torch.randint(width, (n,), generator=generator)
            parts.append(torch.nn.functional.one_hot(chosen, width).double())
    return torch.cat(parts, 1)


def test_words_choices_and_sets(make):
    x, fidelities, y = _spelled(40), torch.arange(40) % 2, torch.arange(40).double().sin()
    x[:20, 1:] = x[0, 1:]  # a constant choice must not be scaled away
    models = [make(), make()]
    for model in models:
        model.feature_blocks = BLOCKS
        model.fit(x, fidelities, y, 2, 0)
    _assert_honest(models[0], x, 2)
    assert torch.equal(models[0].predict(x, 1)[0], models[1].predict(x, 1)[0])
    covariance = models[0].covariance(x, fidelities, x, fidelities)
    assert torch.linalg.eigvalsh(covariance).min() > -1e-9 * covariance.diagonal().max()


def test_the_state_of_one_fit_may_start_the_next(make):
    x, fidelities, y = _data((12, 8, 6))
    state = json.loads(json.dumps(_fitted_once(make).state()))
    again = make()
    again.warm_start(state)
    again.fit(x, fidelities, y, 3, 0)
    torch.testing.assert_close(
        again.predict(_query(), 2), _fitted_once(make).predict(_query(), 2), rtol=1e-2, atol=1e-2
    )


@pytest.mark.parametrize("kind", sorted(ACQUISITIONS))
@pytest.mark.parametrize("counts", [(12, 8, 6), (1, 0, 0), (5, 0, 1)])
def test_every_acquisition_scores_it(make, kind, counts):
    data = _data(counts)
    surrogate = _fit(make, data, 3)
    acquisition: Acquisition = _class(ACQUISITIONS[kind])()
    observed = data[2][data[1] == 2]
    best = float(observed.min()) if len(observed) else None
    reference = torch.cat([data[0], _query()])
    acquisition.prepare(surrogate, sign=-1.0, best=best, reference_features=reference, seed=0)
    gain = acquisition.log_gain(reference)
    assert gain.shape == (len(reference), 3)
    assert gain.isfinite().all()
