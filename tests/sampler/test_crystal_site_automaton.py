"""The table of site states: against the programme it tabulates, against pyxtal, bad input."""

from __future__ import annotations

import itertools
from functools import cache

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from pyxtal.symmetry import Group
from torch import Tensor

from sampler.environments.crystal_site_automaton import DEAD, NEVER, SiteAutomaton, site_automaton
from sampler.environments.crystal_symmetry import can_finish, is_compatible, space_group

MAX_COUNT, N_ELEMENTS = 16, 5


@cache
def automaton() -> SiteAutomaton:
    return site_automaton([space_group(n) for n in range(1, 231)], MAX_COUNT, N_ELEMENTS)


@cache
def pyxtal_group(number: int) -> Group:
    return Group(number)


def state_of(number: int, counts: list[int]) -> int:
    states = automaton().start[torch.tensor([number - 1])]
    for count in counts:
        states = automaton().after(states, torch.tensor([count]))
    return int(states)


def test_dead_stays_dead_and_no_start_is_dead() -> None:
    tables = automaton()
    assert (tables.step[DEAD] == DEAD).all()
    assert (tables.uses[DEAD] == NEVER).all()
    assert (tables.start != DEAD).all()
    assert (tables.uses[1:, 0] != NEVER).all()


@settings(max_examples=300)
@given(st.integers(1, 230), st.lists(st.integers(1, MAX_COUNT), max_size=N_ELEMENTS))
def test_states_are_alive_exactly_where_the_programme_finds_a_way(
    number: int, counts: list[int]
) -> None:
    assert (state_of(number, counts) != DEAD) == is_compatible(space_group(number), counts)


@settings(max_examples=100)
@given(st.integers(1, 230), st.lists(st.integers(1, 9), min_size=2, max_size=N_ELEMENTS))
def test_the_order_of_elements_does_not_matter(number: int, counts: list[int]) -> None:
    states = {state_of(number, list(order)) for order in itertools.permutations(counts)}
    assert len(states) == 1


@settings(max_examples=200)
@given(
    st.integers(1, 230),
    st.lists(st.integers(1, MAX_COUNT), max_size=3),
    st.lists(st.integers(0, 8), min_size=3, max_size=3),
)
def test_room_beside_taken_sites_is_what_the_programme_says(
    number: int, counts: list[int], wished: list[int]
) -> None:
    tables, group = automaton(), space_group(number)
    capacity, multiplicity = tables.capacity[number - 1], tables.multiplicity[number - 1]
    taken = torch.minimum(torch.tensor(wished), capacity)
    by_multiplicity = dict(zip(multiplicity.tolist(), taken.tolist(), strict=True))
    used = tuple(by_multiplicity.get(m, 0) for m, _ in group.fixed)
    ways = tables.uses[state_of(number, counts)]
    has_room = (ways <= capacity - taken).all(dim=1).any()
    assert bool(has_room) == can_finish(group, used, counts)


def random_cases(n: int) -> tuple[Tensor, Tensor]:
    rng = np.random.default_rng(7)
    numbers = torch.as_tensor(rng.permutation(np.arange(n) % 230) + 1)
    counts = torch.as_tensor(rng.integers(1, MAX_COUNT + 1, size=(n, 4)))
    # Small counts and whole multiples of 4 make the compatible cases about as many as the others.
    counts = torch.where(torch.as_tensor(rng.random((n, 1))) < 0.6, (counts + 3) // 4 * 4, counts)
    counts[torch.as_tensor(rng.random((n, 4))) < 0.4] = 0
    return numbers, counts


def test_2300_random_cases_over_all_groups_agree_with_pyxtal() -> None:
    numbers, counts = random_cases(2300)
    states = automaton().start[numbers - 1]
    for column in counts.T:
        states = automaton().after(states, column)
    answers = (states != DEAD).tolist()
    for number, row, answer in zip(numbers.tolist(), counts.tolist(), answers, strict=True):
        atoms = [n for n in row if n]
        expected = not atoms or bool(pyxtal_group(number).check_compatible(atoms)[0])
        assert answer == expected, (number, atoms)
    assert 0.2 < np.mean(answers) < 0.8


def test_groups_with_equal_sites_share_states() -> None:
    tables = automaton()
    for first, second in ((3, 6), (1, 230)):
        a, b = space_group(first), space_group(second)
        same = (a.free, a.fixed) == (b.free, b.fixed)
        assert (tables.start[first - 1] == tables.start[second - 1]) == same


def test_sites_that_no_element_can_take_are_left_out() -> None:
    tables = site_automaton([space_group(227)], 8, 2)
    assert tables.multiplicity.tolist() == [[8]]
    assert tables.capacity.tolist() == [[2]]
    full = tables.step[tables.step[tables.start, 7], 7]
    assert tables.uses[full].tolist() == [[[2]]]


def test_bad_input_is_named() -> None:
    with pytest.raises(ValueError, match="groups: expected at least one"):
        site_automaton([], 4, 2)
    with pytest.raises(ValueError, match="max_count: expected at least 1, got 0"):
        site_automaton([space_group(1)], 0, 2)
    with pytest.raises(ValueError, match="n_elements: expected at least 1, got 0"):
        site_automaton([space_group(1)], 4, 0)
