"""Densities of amounts: they integrate to one, and draws follow them."""

import math
from collections.abc import Callable

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from torch import Tensor

from sampler import amounts
from sampler.policy import N_COMPONENTS

WIDTH = 3 * N_COMPONENTS
KINDS = pytest.mark.parametrize("is_circular", [False, True], ids=["interval", "circle"])


def random_outputs(seed: int, scale: float = 1.0) -> Tensor:
    return scale * torch.randn(1, WIDTH, generator=torch.Generator().manual_seed(seed))


def density(outputs: Tensor, u: Tensor, is_circular: bool) -> Tensor:
    """Density of one mixture at amounts `(m,)`."""
    m = len(u)
    circular = torch.full((m,), is_circular)
    return amounts.log_density(outputs.expand(m, -1), u, circular).exp()


def midpoints(n: int) -> Tensor:
    return (torch.arange(n, dtype=torch.float64) + 0.5) / n


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@settings(max_examples=30)
@given(st.integers(0, 10_000), st.floats(0.0, 3.0), st.booleans())
def test_densities_integrate_to_one(seed: int, scale: float, is_circular: bool) -> None:
    # Betas may be infinite at 0 and 1: u = sin²(πt/2) takes their singularities away.
    t = midpoints(10_000)
    if is_circular:
        total = density(random_outputs(seed, scale), t, is_circular=True).mean()
    else:
        u = torch.sin(math.pi / 2 * t).square()
        slope = math.pi * torch.sin(math.pi / 2 * t) * torch.cos(math.pi / 2 * t)
        total = (density(random_outputs(seed, scale), u, is_circular=False) * slope).mean()
    assert float(total) == pytest.approx(1, abs=1e-3)


def test_outputs_of_zero_are_flat() -> None:
    u = midpoints(1001)
    flat = density(torch.zeros(1, WIDTH), u, is_circular=False)
    assert torch.allclose(flat, torch.ones_like(u), atol=1e-12)
    around = density(torch.zeros(1, WIDTH), u, is_circular=True)
    assert torch.allclose(around, torch.ones_like(u), atol=0.01)


def test_a_single_beta_by_hand() -> None:
    """All weight on component 0, whose excess over the smallest shape its outputs scale."""
    outputs = torch.zeros(1, WIDTH)
    outputs[0, 0] = 60.0
    outputs[0, N_COMPONENTS] = 1.0
    outputs[0, 2 * N_COMPONENTS] = -1.0
    a = 0.5 + 0.5 * math.exp(6 * math.tanh(1 / 6))
    b = 0.5 + (N_COMPONENTS - 0.5) * math.exp(6 * math.tanh(-1 / 6))
    u = torch.tensor([0.1, 0.37, 0.9], dtype=torch.float64)
    assert density(outputs, u, is_circular=False).tolist() == pytest.approx(
        stats.beta(a, b).pdf(u.numpy()).tolist()
    )


def test_a_single_wrapped_cauchy_by_hand() -> None:
    outputs = torch.zeros(1, WIDTH)
    outputs[0, 2] = 60.0  # component 2 of 5 stands at half a turn, ρ = 0.999 · 0.3
    u = torch.tensor([0.0001, 0.2, 0.5], dtype=torch.float64)
    expected = stats.wrapcauchy(0.999 * 0.3).pdf(2 * math.pi * ((u.numpy() - 0.5) % 1.0))
    assert density(outputs, u, is_circular=True).tolist() == pytest.approx(
        (2 * math.pi * expected).tolist()
    )


def test_a_circle_has_no_seam_and_whole_turns_do_not_show() -> None:
    outputs = random_outputs(3)
    ends = density(outputs, torch.tensor([0.0, 1.0], dtype=torch.float64), is_circular=True)
    assert float(ends[0]) == pytest.approx(float(ends[1]), rel=1e-6)
    turned = outputs.clone()
    turned[:, N_COMPONENTS : 2 * N_COMPONENTS] += 3
    u = midpoints(50)
    assert torch.allclose(
        density(outputs, u, is_circular=True), density(turned, u, is_circular=True), rtol=1e-4
    )


def cumulative(
    outputs: Tensor, is_circular: bool, low: float = 0.0, width: float = 1.0
) -> Callable[[np.ndarray], np.ndarray]:
    """The distribution function on [low, low + width], by a fine midpoint rule."""
    n = 20_000
    mass = density(outputs, (low + width * midpoints(n)) % 1.0, is_circular).cumsum(0)
    mass = torch.cat([torch.zeros(1, dtype=torch.float64), mass / mass[-1]]).numpy()

    return lambda u: np.interp((u - low) % 1.0 / width, np.linspace(0, 1, n + 1), mass)


@KINDS
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_draws_follow_the_density(is_circular: bool, seed: int) -> None:
    outputs, n = random_outputs(seed), 5_000
    drawn = amounts.draw(outputs.expand(n, -1), torch.full((n,), is_circular), generator(seed))
    assert drawn.dtype == torch.float64
    result = stats.kstest(drawn.numpy(), cumulative(outputs, is_circular))
    assert result.pvalue > 1e-3
    wrong = stats.kstest(drawn.numpy(), cumulative(random_outputs(seed + 50), is_circular))
    assert wrong.pvalue < 1e-3


def test_rows_draw_from_their_own_mixtures() -> None:
    outputs = torch.cat([random_outputs(1), random_outputs(2)]).repeat(4000, 1)
    circular = torch.tensor([False, True]).repeat(4000)
    drawn = amounts.draw(outputs, circular, generator()).reshape(4000, 2).numpy()
    for i, is_circular in enumerate([False, True]):
        cdf = cumulative(random_outputs(i + 1), is_circular)
        assert stats.kstest(drawn[:, i], cdf).pvalue > 1e-3


RANGES = pytest.mark.parametrize(
    ("is_circular", "low", "high"),
    [(False, 0.2, 0.7), (False, 0.0, 0.05), (True, 0.3, 0.45), (True, 0.8, 0.3)],
    ids=["interval", "edge", "arc", "seam"],
)


@RANGES
def test_draws_within_a_range_follow_the_conditional(
    is_circular: bool, low: float, high: float
) -> None:
    outputs, n = random_outputs(5), 2_000
    ends = [torch.full((n,), end, dtype=torch.float64) for end in (low, high)]
    circular = torch.full((n,), is_circular)
    drawn = amounts.draw_within(outputs.expand(n, -1), circular, *ends, generator(1))
    width = (high - low) % 1.0
    behind = (drawn - low) % 1.0
    assert float(behind.max()) <= width + 1e-9
    cdf = cumulative(outputs, is_circular, low, width)
    result = stats.kstest(behind.numpy(), lambda above: cdf(low + above))
    assert result.statistic < 0.05  # 0.044 at p = 0.001, and what flat cells cost


@RANGES
def test_density_within_a_range_integrates_to_one(
    is_circular: bool, low: float, high: float
) -> None:
    n = 128 * 8
    width = (high - low) % 1.0
    u = (low + width * midpoints(n)) % 1.0
    ends = [torch.full((n,), end, dtype=torch.float64) for end in (low, high)]
    outputs = random_outputs(6).expand(n, -1)
    circular = torch.full((n,), is_circular)
    within = amounts.log_density_within(outputs, circular, *ends, u).exp()
    assert float(within.mean()) * width == pytest.approx(1, rel=1e-6)
    conditional = density(random_outputs(6), u, is_circular)
    conditional = conditional / (conditional.mean() * width)
    assert float(((within - conditional).abs().mean()) * width) < 0.02


@settings(max_examples=50)
@given(
    st.lists(st.sampled_from([-1e3, -5.0, 0.0, 5.0, 1e3]), min_size=WIDTH, max_size=WIDTH),
    st.booleans(),
    st.floats(0.0, 1.0),
)
def test_extreme_outputs_stay_finite(values: list[float], is_circular: bool, u: float) -> None:
    outputs = torch.tensor([values], requires_grad=True)
    circular = torch.tensor([is_circular])
    value = amounts.log_density(outputs, torch.tensor([u], dtype=torch.float64), circular)
    value.sum().backward()
    assert bool(value.isfinite().all())
    assert bool(outputs.grad.isfinite().all())
    n = 20
    rows, circular = outputs.detach().expand(n, -1), circular.expand(n)
    drawn = amounts.draw(rows, circular, generator())
    assert bool(((drawn > 0) & (drawn < 1)).all())
    assert bool(amounts.log_density(rows, drawn, circular).isfinite().all())
    low, high = torch.full((n,), 0.4).double(), torch.full((n,), 0.5).double()
    within = amounts.draw_within(rows, circular, low, high, generator())
    assert bool(((within >= 0.4) & (within <= 0.5)).all())
    log_p = amounts.log_density_within(rows, circular, low, high, within)
    assert bool(log_p.isfinite().all())


def test_gradient_of_the_density_against_differences() -> None:
    u = torch.tensor([0.3, 0.8], dtype=torch.float64)
    circular = torch.tensor([False, True])
    outputs = random_outputs(8).double().expand(2, -1).clone().requires_grad_()
    assert torch.autograd.gradcheck(
        lambda x: amounts.log_density(x, u, circular), (outputs,), atol=1e-5
    )


@pytest.mark.parametrize("is_circular", [False, True], ids=["interval", "circle"])
def test_one_kind_alone_or_beside_the_other(is_circular: bool) -> None:
    """The same densities, bit for bit, whatever the other rows are."""
    n = 20
    outputs = torch.randn(2 * n, WIDTH, generator=generator())
    u = torch.rand(2 * n, dtype=torch.float64, generator=generator(1))
    low, high = u * 0.5, u * 0.5 + 0.5
    mixed = (torch.arange(2 * n) < n) == is_circular
    own = torch.full((n,), is_circular)
    assert torch.equal(
        amounts.log_density(outputs, u, mixed)[:n], amounts.log_density(outputs[:n], u[:n], own)
    )
    assert torch.equal(
        amounts.log_density_within(outputs, mixed, low, high, u)[:n],
        amounts.log_density_within(outputs[:n], own, low[:n], high[:n], u[:n]),
    )


@pytest.mark.parametrize(
    ("is_circular", "absent"),
    [(False, ["_cauchy_shapes", "_log_cauchy"]), (True, ["_beta_shapes", "_log_beta"])],
    ids=["interval", "circle"],
)
def test_a_kind_that_no_row_has_costs_nothing(
    is_circular: bool, absent: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in absent:
        monkeypatch.setattr(amounts, name, lambda *_: pytest.fail("evaluated for no row"))
    n = 5
    outputs, circular = random_outputs(0).expand(n, -1), torch.full((n,), is_circular)
    low, high = torch.full((n,), 0.2).double(), torch.full((n,), 0.6).double()
    drawn = amounts.draw(outputs, circular, generator())
    assert amounts.log_density(outputs, drawn, circular).shape == (n,)
    within = amounts.draw_within(outputs, circular, low, high, generator())
    assert amounts.log_density_within(outputs, circular, low, high, within).shape == (n,)


@KINDS
def test_no_rows_no_amounts(is_circular: bool) -> None:
    outputs, circular = torch.zeros(0, WIDTH), torch.full((0,), is_circular)
    empty = torch.zeros(0, dtype=torch.float64)
    assert amounts.draw(outputs, circular, generator()).shape == (0,)
    assert amounts.log_density(outputs, empty, circular).shape == (0,)


@settings(max_examples=50)
@given(st.integers(1, 5), st.integers(0, 4), st.integers(0, 8), st.integers(0, 10_000))
def test_outputs_of_a_head(n_heads: int, first: int, m: int, seed: int) -> None:
    """Each row's own head, of all rows in order or of chosen ones, and a gradient to it alone."""
    outputs = torch.randn(6, first + n_heads * WIDTH, generator=generator(seed))
    outputs.requires_grad_()
    rows = torch.randint(6, (m,), generator=generator(seed + 1))
    heads = torch.randint(n_heads, (m,), generator=generator(seed + 2))
    picked = amounts.head_outputs(outputs, first + heads * WIDTH, WIDTH, rows)
    by_hand = outputs[:, first:].unflatten(1, (n_heads, WIDTH))[rows, heads]
    assert torch.equal(picked, by_hand)
    weights = torch.randn(m, WIDTH, generator=generator(seed + 3))
    gradients = [
        torch.autograd.grad((x * weights).sum(), outputs, retain_graph=True)[0]
        for x in (picked, by_hand)
    ]
    assert torch.allclose(*gradients)
    columns = first + heads.new_zeros(6)
    assert torch.equal(
        amounts.head_outputs(outputs, columns, WIDTH), outputs[:, first : first + WIDTH]
    )


def test_widths_of_ranges() -> None:
    low = torch.tensor([0.2, 0.9, 0.0])
    high = torch.tensor([0.5, 0.1, 1.0])
    assert amounts.range_width(low, high).tolist() == pytest.approx([0.3, 0.2, 1.0])
