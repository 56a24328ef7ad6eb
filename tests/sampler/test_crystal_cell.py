import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from sampler.environments.crystal_bounds import Bounds
from sampler.environments.crystal_cell import MIN_VOLUME_FACTOR, Cell
from sampler.environments.crystal_parameters import PARAMETERS
from sampler.environments.crystal_symmetry import SYSTEMS

Amounts = Callable[[int], Tensor]
TRICLINIC, MONOCLINIC, ORTHORHOMBIC, TETRAGONAL, HEXAGONAL, CUBIC = range(6)

CELLS: dict[str, dict[str, Any]] = {
    "reference": {"lengths": [0.9, 100], "angles": [50, 150]},
    "volumes": {"lengths": [2, 20], "angles": [40, 140], "volume_per_atom": (5.0, 40.0)},
    "flat": {"lengths": [6, 12], "angles": [50, 150], "volume_per_atom": (5.0, 12.0)},
    "obtuse": {"lengths": [3, 9], "angles": [100, 150]},
    "acute": {"lengths": [3, 9], "angles": [20, 40]},
    "each": {
        "lengths": {"a": [3, 8], "b": [5, 9], "c": [2, 30]},
        "angles": {"alpha": [60, 80], "beta": [70, 160], "gamma": [20, 125]},
        "volume_per_atom": (8.0, 14.0),
    },
}


@pytest.fixture(params=CELLS)
def cell(request: pytest.FixtureRequest) -> Cell:
    return Cell(**CELLS[request.param])


def batch(cell: Cell, n: int, seed: int = 0, max_atoms: int = 40) -> tuple[Tensor, Tensor]:
    """Systems and numbers of atoms that have a cell, `(n,)` each."""
    generator = torch.Generator().manual_seed(seed)
    possible = cell.possible_n_atoms(max_atoms).nonzero()
    picked = possible[torch.randint(len(possible), (n,), generator=generator)]
    return picked[:, 0], picked[:, 1]


def uniform(seed: int) -> Amounts:
    generator = torch.Generator().manual_seed(seed)
    return lambda n: torch.rand(n, dtype=torch.float64, generator=generator)


def at_the_ends(seed: int) -> Amounts:
    """Amounts next to 0, next to 1, or anywhere, a third each: what ranges end in is narrow."""
    generator = torch.Generator().manual_seed(seed)

    def draw(n: int) -> Tensor:
        amounts = torch.rand(n, dtype=torch.float64, generator=generator)
        kind = torch.randint(3, (n,), generator=generator)
        return torch.where(kind == 0, 1e-9, torch.where(kind == 1, 1 - 1e-9, amounts))

    return draw


def put(values: Tensor, parameter: Tensor, new: Tensor) -> Tensor:
    rows = (parameter < 6).nonzero()[:, 0]
    return values.index_put((rows, parameter[rows]), new[rows])


def walk(
    cell: Cell, systems: Tensor, n_atoms: Tensor, amounts: Amounts
) -> list[tuple[Tensor, Tensor, Bounds, Tensor]]:
    """Each step's state, parameter, bounds and new state, until all cells are complete."""
    values = torch.zeros(len(systems), 6, dtype=torch.float64)
    steps: list[tuple[Tensor, Tensor, Bounds, Tensor]] = []
    while True:
        parameter = cell.next_parameter(values, systems)
        if bool((parameter == 6).all()):
            return steps
        bounds = cell.bounds(values, systems, parameter, n_atoms)
        after = put(values, parameter, cell.value(amounts(len(systems)), bounds, parameter))
        steps.append((values, parameter, bounds, after))
        values = after


def factor(angles: Tensor) -> Tensor:
    """Volume over abc from axes as vectors: no formula of the code under test; nan: no cell."""
    alpha, beta, gamma = angles.deg2rad().unbind(dim=-1)
    c_x = beta.cos()
    c_y = (alpha.cos() - beta.cos() * gamma.cos()) / gamma.sin()
    return gamma.sin() * (1 - c_x**2 - c_y**2).sqrt()


def volume(cell: Cell, values: Tensor, systems: Tensor) -> tuple[Tensor, Tensor]:
    done = cell.complete(values, systems)
    return factor(done[:, :3]), factor(done[:, :3]) * done[:, 3:].prod(dim=1)


@pytest.mark.parametrize("draw", [uniform, at_the_ends])
def test_every_walk_ends_in_a_cell_inside_all_ranges(
    cell: Cell, draw: Callable[[int], Amounts]
) -> None:
    systems, n_atoms = batch(cell, 1500)
    values = walk(cell, systems, n_atoms, draw(1))[-1][3]
    done = cell.complete(values, systems)
    low, high = torch.tensor(cell.limits, dtype=torch.float64).unbind(dim=1)
    assert ((low <= done) & (done <= high)).all()
    size, total = volume(cell, values, systems)
    assert size.min() >= MIN_VOLUME_FACTOR * (1 - 1e-3)
    torch.testing.assert_close(total, cell.volume(values, systems), rtol=1e-6, atol=0)
    if cell.volume_per_atom is not None:
        smallest, largest = cell.volume_per_atom
        assert smallest * (1 - 1e-3) <= (total / n_atoms).min()
        assert (total / n_atoms).max() <= largest * (1 + 1e-3)
    assert cell.contains(values, systems, n_atoms).all()
    assert ((values != 0) == cell.free[systems]).all()


def test_only_ranges_as_narrow_as_a_step_lean_on_rounding(cell: Cell) -> None:
    systems, n_atoms = batch(cell, 8000)
    values = walk(cell, systems, n_atoms, uniform(2))[-1][3]
    size, total = volume(cell, values, systems)
    is_exact = size >= MIN_VOLUME_FACTOR
    if cell.volume_per_atom is not None:
        smallest, largest = cell.volume_per_atom
        is_exact &= (smallest * n_atoms <= total) & (total <= largest * n_atoms)
    assert (~is_exact).sum() <= 16  # 0.2 %


def test_a_step_backward_is_the_inverse_of_a_step(cell: Cell) -> None:
    systems, n_atoms = batch(cell, 500)
    for before, parameter, bounds, after in walk(cell, systems, n_atoms, at_the_ends(3)):
        moved = parameter < 6
        assert (cell.last_parameter(after, systems)[moved] == parameter[moved]).all()
        new = after.gather(1, parameter.clamp_max(5)[:, None])[:, 0]
        amounts = cell.amount(new, bounds, parameter)
        assert ((amounts > 0) & (amounts < 1))[moved].all()
        assert (put(before, parameter, cell.value(amounts, bounds, parameter)) == after).all()
        assert cell.log_width(bounds, parameter).isfinite().all()


def test_angles_that_rounding_took_just_out_of_range_go_on_to_the_nearest_cell() -> None:
    cell = Cell([1, 9], [1, 179], volume_per_atom=(0.01, 100))
    alpha = 18.43  # sin² = 0.09995
    values = torch.tensor([[alpha, alpha, 0, 0, 0, 0]], dtype=torch.float64)
    args = torch.tensor([TRICLINIC]), torch.tensor([2]), torch.tensor([1])
    bounds = cell.bounds(values, *args)
    values[0, 2] = cell.value(torch.tensor([0.5], dtype=torch.float64), bounds, args[1])
    best = math.degrees(math.acos(math.cos(math.radians(alpha)) ** 2))
    assert values[0, 2].item() == pytest.approx(best, abs=0.2)
    assert factor(values[:, :3]).item() == pytest.approx(0.1, abs=1e-4)


@pytest.mark.parametrize("n_set", [0, 1, 2])
def test_angles_are_bounded_exactly(cell: Cell, n_set: int) -> None:
    """Against all completions on a grid: none outside the bounds, some next to each end."""
    systems, n_atoms = batch(cell, 4000)
    is_triclinic = systems == TRICLINIC
    systems, n_atoms = systems[is_triclinic][:6], n_atoms[is_triclinic][:6]
    steps = walk(cell, systems, n_atoms, uniform(4))
    n_grid = {0: 81, 1: 401, 2: 3001}[n_set]
    axes = [torch.linspace(*pair, n_grid, dtype=torch.float64) for pair in cell.limits[:3]]
    log_low, log_high = (sum(math.log(pair[end]) for pair in cell.limits[3:]) for end in (0, 1))
    values, parameter, bounds, _ = steps[n_set]
    assert (parameter == n_set).all()
    for row in range(len(systems)):
        grid = torch.stack(
            torch.meshgrid(
                *[values[row, i : i + 1] if i < n_set else axes[i] for i in range(3)],
                indexing="ij",
            ),
            dim=-1,
        ).view(n_grid, -1, 3)
        sizes = factor(grid).nan_to_num(0.0)
        least, most = MIN_VOLUME_FACTOR, 1.0
        if cell.volume_per_atom is not None:
            atoms = n_atoms[row].item()
            least = max(least, atoms * cell.volume_per_atom[0] / math.exp(log_high))
            most = atoms * cell.volume_per_atom[1] / math.exp(log_low)
        step = (axes[n_set][1] - axes[n_set][0]).item()
        found = ((sizes >= least) & (sizes <= most)).any(dim=1)
        # Between grid points the volume factor may be bigger or smaller than at any of them.
        slack = 0.0 if n_set == 2 else 0.08 if n_set == 0 else 0.02
        near = ((sizes >= least - slack) & (sizes <= most + slack)).any(dim=1)
        x = axes[n_set]
        low, high, gap_low, gap_high = (end[row].item() for end in bounds)
        inside = (x >= low - 0.01) & (x <= high + 0.01)
        inside &= (x <= gap_low + 0.01) | (x >= gap_high - 0.01)
        assert not (found & ~inside).any()
        well_inside = (x > low + step) & (x < high - step)
        well_inside &= (x < gap_low - step) | (x > gap_high + step)
        assert not (well_inside & ~near).any()


def test_lengths_are_bounded_exactly() -> None:
    cell = Cell([2, 12], [60, 120], volume_per_atom=(6.0, 11.0))
    systems, n_atoms = batch(cell, 600)
    ends = torch.tensor(cell.limits[3], dtype=torch.float64)
    for before, parameter, bounds, _ in walk(cell, systems, n_atoms, uniform(5)):
        for value, beyond in ((bounds.low, -2e-4), (bounds.high, 2e-4)):
            for shift, is_inside in ((0.0, True), (beyond, False)):
                moved = put(before, parameter, value + shift)
                spans = []
                for end in ends:
                    filled = torch.where(cell.free[systems] & (moved == 0), end, moved)
                    spans.append(cell.volume(filled, systems) / n_atoms)
                rows = (parameter >= 3) & (parameter < 6)
                if not is_inside:  # where the own range ends, nothing more is to be seen
                    rows &= (value != ends[0]) & (value != ends[1])
                overlaps = (spans[0] <= 11.0 * (1 + 1e-9)) & (spans[1] >= 6.0 * (1 - 1e-9))
                is_wide = bounds.high > bounds.low
                assert (overlaps == is_inside)[rows & is_wide].all()


def test_the_possible_numbers_of_atoms_are_those_with_a_cell_on_a_grid(cell: Cell) -> None:
    table = cell.possible_n_atoms(60)
    for system in range(len(SYSTEMS)):
        if not cell.is_possible[system]:
            assert not table[system].any()
            continue
        generator = torch.Generator().manual_seed(system)
        systems = torch.full((20_000,), system)
        u = torch.rand(20_000, 6, dtype=torch.float64, generator=generator)
        u = torch.where(u < 0.1, 0.0, torch.where(u > 0.9, 1.0, u))
        low, high = cell._low[system], cell._high[system]
        values = (low + u * (high - low)) * cell.free[system]
        size, total = volume(cell, values, systems)
        total = total[size >= MIN_VOLUME_FACTOR]
        smallest, largest = cell.volume_per_atom or (1e-9, 1e9)
        for atoms in range(61):
            is_found = bool(((total >= smallest * atoms) & (total <= largest * atoms)).any())
            assert not is_found or table[system, atoms], (SYSTEMS[system], atoms)
            near = (total >= 0.8 * smallest * atoms) & (total <= 1.25 * largest * atoms)
            assert not table[system, atoms] or bool(near.any()), (SYSTEMS[system], atoms)


@pytest.mark.parametrize("system", range(6), ids=SYSTEMS)
def test_the_reference_measure_is_uniform_on_the_unit_cube(system: int) -> None:
    """Mean of the product of widths = share of the cube of free parameters that is a cell."""
    cell = Cell([1, 50], [30, 150], volume_per_atom=(2.0, 40.0))
    n = 20_000
    systems, n_atoms = torch.full((n,), system), torch.full((n,), 20)
    log_measure = torch.zeros(n, dtype=torch.float64)
    for _, parameter, bounds, _ in walk(cell, systems, n_atoms, uniform(6)):
        log_measure += cell.log_width(bounds, parameter)
    u = torch.rand(n, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(7))
    lengths = (math.log(50) * u[:, 3:]).exp()
    values = torch.cat([30 + 120 * u[:, :3], lengths], dim=1) * cell.free[system]
    size, total = volume(cell, values, systems)
    share = ((size >= 0.1) & (total >= 40) & (total <= 800)).double().mean()
    assert log_measure.exp().mean() == pytest.approx(share.item(), abs=0.015)


def test_uniform_amounts_draw_lengths_uniformly_in_the_logarithm_and_angles_linearly() -> None:
    cell = Cell([1, 100], [50, 150])
    amounts = torch.tensor([0.25, 0.5, 0.75], dtype=torch.float64)
    values, systems = torch.zeros(3, 6, dtype=torch.float64), torch.full((3,), CUBIC)
    parameter = cell.next_parameter(values, systems)
    bounds = cell.bounds(values, systems, parameter)
    lengths = cell.value(amounts, bounds, parameter)
    torch.testing.assert_close(lengths.log10(), 2 * amounts, atol=1e-4, rtol=0)
    assert cell.log_width(bounds, parameter).tolist() == pytest.approx([0.0] * 3)
    systems = torch.full((3,), MONOCLINIC)
    parameter = cell.next_parameter(values, systems)
    assert [PARAMETERS[i] for i in parameter] == ["beta"] * 3
    angles = cell.value(amounts, cell.bounds(values, systems, parameter), parameter)
    assert angles.tolist() == [75.0, 100.0, 125.0]


def test_flat_cells_leave_a_gap_and_amounts_skip_it() -> None:
    cell = Cell([4, 9], [50, 130], volume_per_atom=(5.0, 12.0))
    systems, n_atoms = torch.tensor([MONOCLINIC]), torch.tensor([4])  # sin beta ≤ 48 / 64
    values, parameter = torch.zeros(1, 6, dtype=torch.float64), torch.tensor([1])
    assert not cell.is_possible_for(systems, n_atoms)  # sin 50 > 0.75
    systems, n_atoms = systems.expand(1001), torch.full((1001,), 5)  # sin beta ≤ 60 / 64
    values, parameter = values.expand(1001, 6), parameter.expand(1001)
    bounds = cell.bounds(values, systems, parameter, n_atoms)
    edge = math.degrees(math.asin(60 / 64))
    assert bounds.gap_low[0].item() == pytest.approx(edge, abs=0.01)
    assert bounds.gap_high[0].item() == pytest.approx(180 - edge, abs=0.01)
    drawn = cell.value(torch.linspace(0, 1, 1001).double(), bounds, parameter)
    assert ((drawn <= bounds.gap_low) | (drawn >= bounds.gap_high)).all()
    assert drawn.diff().min() >= 0
    assert {50.0, 130.0} <= set(drawn.tolist())
    share = 2 * (edge - 50) / 80
    assert cell.log_width(bounds, parameter)[0].exp().item() == pytest.approx(share, abs=1e-3)


@pytest.mark.parametrize("volumes", [None, (5.0, 40.0)], ids=["free", "volumes"])
def test_a_narrowed_cell_gives_amounts_of_the_whole_one(volumes: tuple[float, float]) -> None:
    outer = Cell([0.9, 100], [50, 150], volume_per_atom=volumes)
    inner = outer.narrowed(lengths=[10, 20], angles={"alpha": [75, 135], "beta": [75, 135]})
    is_possible = inner.possible_n_atoms(200)
    systems, n_atoms = is_possible.nonzero()[::3].unbind(dim=1)
    values, draw = torch.zeros(len(systems), 6, dtype=torch.float64), at_the_ends(8)
    while not (inner.next_parameter(values, systems) == 6).all():
        parameter = inner.next_parameter(values, systems)
        narrow = inner.bounds(values, systems, parameter, n_atoms)
        whole = outer.bounds(values, systems, parameter, n_atoms)
        first, last = outer.amounts_inside(narrow, whole, parameter)
        assert ((first >= 0) & (last <= 1) & (first < last)).all()
        has_gap = narrow.gap_high > narrow.gap_low
        for amounts, end in ((first, narrow.low), (last, narrow.high)):
            reached = outer.value(amounts, whole, parameter)
            assert (reached == end)[~has_gap & (parameter < 6)].all()
        new = outer.value(first + draw(len(systems)) * (last - first), whole, parameter)
        values = put(values, parameter, new)
    assert inner.contains(values, systems, n_atoms).all()
    assert outer.contains(values, systems, n_atoms).all()
    lengths = inner.complete(values, systems)[:, 3:]
    assert lengths.min() >= 10
    assert lengths.max() <= 20


def test_the_policy_sees_what_is_set_and_what_is_next(cell: Cell) -> None:
    systems, n_atoms = batch(cell, 300)
    for before, parameter, _, after in walk(cell, systems, n_atoms, at_the_ends(9)):
        seen = cell.inputs(after, systems)
        assert seen.shape == (300, cell.n_inputs)
        assert seen.dtype == torch.float32
        assert seen.abs().max() <= 1
        nexts = cell.inputs(before, systems)[:, 12:]
        assert (nexts.sum(dim=1) == (parameter < 6)).all()
        assert (nexts.argmax(dim=1) == parameter)[parameter < 6].all()
