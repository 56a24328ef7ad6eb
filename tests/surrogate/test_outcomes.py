import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from surrogate.outcomes import fit_outcome_scale, pull_in_outliers


def _tensors(values: list[float], fidelities: list[int]) -> tuple[torch.Tensor, torch.Tensor]:
    return torch.tensor(values, dtype=torch.float64), torch.tensor(fidelities)


@given(
    st.lists(
        st.tuples(st.floats(-10, 10).map(lambda v: round(v, 3)), st.integers(0, 2)),
        min_size=2,
        max_size=12,
    ),
    st.floats(1e-9, 1e9),
    st.floats(-100, 100),
)
def test_commutes_with_shift_and_scale(rows, factor, shift):
    values, fidelities = _tensors([v for v, _ in rows], [j for _, j in rows])
    if float(values.max() - values.min()) == 0:
        return
    before = fit_outcome_scale(values, fidelities, 3)
    after = fit_outcome_scale(factor * (values + shift), fidelities, 3)
    torch.testing.assert_close(after.scale, factor * before.scale, rtol=1e-6, atol=0)
    torch.testing.assert_close(
        after.location, factor * (before.location + shift), rtol=1e-6, atol=factor * 1e-9
    )


def test_many_observations_get_their_own_mean_and_sd():
    generator = torch.Generator().manual_seed(0)
    low = 100 + 30 * torch.randn(500, generator=generator, dtype=torch.float64)
    high = 0.1 * torch.randn(500, generator=generator, dtype=torch.float64)
    fidelities = torch.arange(2).repeat_interleave(500)
    scale = fit_outcome_scale(torch.cat([low, high]), fidelities, 2)
    torch.testing.assert_close(scale.location, torch.stack([low.mean(), high.mean()]))
    torch.testing.assert_close(scale.scale, torch.stack([low.std(), high.std()]), rtol=0.02, atol=0)


def test_a_single_observation_borrows_the_pooled_spread():
    values, fidelities = _tensors([0.0, 1.0, 2.0, 50.0], [0, 0, 0, 1])
    scale = fit_outcome_scale(values, fidelities, 2)
    assert scale.location.tolist() == [1.0, 50.0]
    assert scale.scale[1] == pytest.approx(1.0)


def test_an_unobserved_fidelity_borrows_from_the_nearest_higher_one_first():
    values, fidelities = _tensors([0.0, 1.0, 10.0, 14.0], [0, 0, 2, 2])
    scale = fit_outcome_scale(values, fidelities, 4)
    assert scale.location.tolist() == [0.5, 12.0, 12.0, 12.0]
    assert scale.scale[1] == scale.scale[2] == scale.scale[3]


@pytest.mark.parametrize(
    ("values", "scale"),
    [([3.0], 3.0), ([-2.0, -2.0], 2.0), ([0.0], 1.0), ([1e-300], 1e-300), ([1e300], 1e300)],
)
def test_without_spread_the_scale_is_the_magnitude(values, scale):
    got = fit_outcome_scale(*_tensors(values, [0] * len(values)), 1)
    assert float(got.scale) == pytest.approx(scale)


def test_rounding_is_not_spread():
    values, fidelities = _tensors([1e9, 1e9 * (1 + 2e-16), 1e9], [0, 0, 0])
    assert float(fit_outcome_scale(values, fidelities, 1).scale) == pytest.approx(1e9)


def test_outliers_are_pulled_in_below_the_target_only():
    values, fidelities = _tensors([0.0, 1.0, 2.0, 3.0, 1e6] * 2, [0] * 5 + [1] * 5)
    pulled, extra = pull_in_outliers(values, fidelities, 2, 6.0)
    # median 2, median absolute deviation 1
    assert pulled[4] == pytest.approx(2 + 6 * 1.4826)
    assert torch.equal(pulled[:4], values[:4])
    assert torch.equal(pulled[5:], values[5:])
    assert values[4] == 1e6
    assert extra.sqrt().tolist() == pytest.approx([0] * 4 + [6 * 1.4826] + [0] * 5)


def test_with_most_values_equal_nothing_is_an_outlier():
    values, fidelities = _tensors([0.0, 0.0, 0.0, 5.0], [0] * 4)
    pulled, extra = pull_in_outliers(values, fidelities, 2, 6.0)
    assert torch.equal(pulled, values)
    assert torch.equal(extra, torch.zeros(4, dtype=torch.float64))
