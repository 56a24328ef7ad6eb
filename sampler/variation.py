"""Variation operators that work in every space: mutation, crossover, growth inside a restriction.

A candidate is changed by going back some steps of a random trajectory that leads to it, and forward
again along a guide (`sampler.guided`): its own steps, or those of another parent.

Named axes: n candidates, w state columns.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from sampler.environment import Environment
from sampler.guided import (
    Guide,
    Steps,
    follow,
    is_in_range,
    log_backward,
    log_density,
    log_uniform,
    steps_of,
)
from sampler.rollout import (
    Behaviour,
    Noise,
    Trajectories,
    check_choices,
    check_length,
    choose,
    heads_of,
    roll_out,
)
from sampler.trajectories import columns

_SMALLEST_REACH, _LARGEST_REACH = 1e-3, 0.5
"""Of a new amount near the old one: scales drawn log-uniformly, so none has to be chosen."""
_SHIFTED = 0.25
"""The share of mutations that double or leave out steps, instead of changing the first."""


@dataclass(frozen=True)
class Habit:
    """How far a candidate is changed.

    `n_back`: the mean number of steps taken back, which is geometrically distributed.
    `mutation_rate`: the share of the steps forward that are chosen anew. None: drawn for each
    candidate, log-uniform over all scales (1 to max_steps, 1 / max_steps to 1).
    """

    n_back: float | None = None
    mutation_rate: float | None = None

    def __post_init__(self) -> None:
        if self.n_back is not None and not 1 <= self.n_back < math.inf:
            raise ValueError(f"n_back: expected at least 1, or None for any, got {self.n_back}")
        if self.mutation_rate is not None and not 0 < self.mutation_rate <= 1:
            raise ValueError(
                "mutation_rate: expected a share above 0 up to 1, or None for any, "
                f"got {self.mutation_rate}"
            )


@dataclass(frozen=True)
class BackAndForth:
    """Candidates, each with a variant of it, and the steps between them."""

    back: Trajectories  # from the last common state to the old candidates
    forth: Trajectories  # from there to the new ones
    log_ratio: (
        Tensor  # (n,): log of the density of proposing the old from the new, over its inverse
    )

    @property
    def states(self) -> Tensor:
        """The new candidates `(n, w)`."""
        return self.forth.terminal_states


def weighed_states(
    environment: Environment, n: int, generator: torch.Generator
) -> tuple[Tensor, Tensor]:
    """N candidates, uniform over actions, and the log of what each weighs, `(n, w)` and `(n,)`.

    Weights P_B(τ | x) / P_F(τ) of their trajectories make sums over the space of them: the mean of
    weight · f(x) estimates Σ f(x) over all candidates, or the integral in a continuous space.
    """
    walks = roll_out(environment, lambda states, rows: states, n, generator, Behaviour())
    return walks.terminal_states, log_backward(environment, walks) - log_uniform(environment, walks)


def walk_back(
    environment: Environment, states: Tensor, n_steps: Tensor, generator: torch.Generator
) -> Trajectories:
    """Go back `n_steps` `(n,)` from each of `states`, or to the initial state; uniform choices."""
    terminal_states = states
    rows = torch.arange(len(states), device=states.device)
    noise = Noise(environment.n_actions, generator, 0.0)
    steps: list[tuple[Tensor, ...]] = []
    mask = environment.backward_mask(states)
    while len(rows) > 0 or not steps:
        check_length(environment.max_steps, len(steps), states)
        actions = choose(states, mask, noise, Behaviour())
        check_choices(states, mask, actions)
        if environment.action_heads is None:
            parents = environment.step_back(states, actions)
            extra: tuple[Tensor, ...] = ()
        else:
            drawn = _uniform(rows, generator)
            parents = environment.step_back(states, actions, drawn)
            extra = (environment.amounts_between(parents, actions, states),)
        steps.append((rows, parents, actions, states, environment.forward_mask(parents), *extra))
        mask = environment.backward_mask(parents)
        goes_on = mask.any(dim=1) & (n_steps[rows] > len(steps))
        states, rows, mask = parents[goes_on], rows[goes_on], mask[goes_on]
    rows, parents, actions, states, masks, *amounts = columns(steps)
    amounts_or_none = amounts[0] if amounts else None
    return Trajectories(
        terminal_states, rows, parents, actions, amounts_or_none, states, masks, is_reversed=True
    )


def mutated(
    environment: Environment,
    states: Tensor,
    habit: Habit,
    generator: torch.Generator,
    *,
    has_ratio: bool = False,
) -> BackAndForth:
    """A variant of each of `states` `(n, w)`: back some steps, and forward mostly as before.

    The first step forward is chosen anew, or some steps are doubled or left out. With `has_ratio`
    the Metropolis-Hastings ratio q(x | x') / q(x' | x) is computed for the pair of trajectories
    (the back-and-forth proposal of Zhang et al. 2022, arXiv 2202.01361; here with a guide),
    else it is 0.
    """
    mean_back, rate = _scales(environment, habit, states, generator)
    n_back = _drawn_back(environment, mean_back, generator)
    back = walk_back(environment, states, n_back, generator)
    steps = steps_of(back)
    starts = _states_at(back, steps, torch.zeros_like(steps.lengths))
    guide = _mutating(environment, steps, rate, generator)
    forth = follow(environment, starts, guide, generator)
    if not has_ratio:
        return BackAndForth(back, forth, rate.new_zeros(len(states)))
    there = steps_of(forth)
    return_guide = replace(
        guide, actions=there.actions, amounts=there.amounts, shift=guide.shift.neg()
    )
    log_ratio = (
        log_backward(environment, forth)
        + log_density(environment, back, return_guide)
        - log_backward(environment, back)
        - log_density(environment, forth, guide)
    )
    log_going_on = _log_going_on(mean_back)
    # Arriving at the same state after another number of steps back; 0 · -inf means equal numbers.
    longer = there.lengths - steps.lengths
    log_ratio = log_ratio + torch.where(longer == 0, 0.0, longer * log_going_on)
    return BackAndForth(back, forth, log_ratio)


def crossed(
    environment: Environment,
    first: Tensor,
    second: Tensor,
    habit: Habit,
    generator: torch.Generator,
) -> Tensor:
    """A child of each pair of candidates, `(n, w)`: the beginning of `first`, the end of `second`.

    A trajectory to the first parent is followed up to a random step; from there on the choices of
    one to the second parent, step by step, are taken as far as the masks allow. Where they do not,
    and in the share `mutation_rate` of the steps, the choice is random.
    """
    is_crossed = torch.ones(len(first), dtype=torch.bool, device=first.device)
    return bred(environment, first, second, is_crossed, habit, generator)


def bred(
    environment: Environment,
    first: Tensor,
    second: Tensor,
    is_crossed: Tensor,
    habit: Habit,
    generator: torch.Generator,
) -> Tensor:
    """Children `(n, w)` of `first`: `crossed` with `second` where asked `(n,)`, else `mutated`.

    All of them in one pass, since the time of a pass is that of its longest trajectory.
    """
    n, pairs = len(first), is_crossed.nonzero()[:, 0]
    mean_back, rate = _scales(environment, habit, first, generator)
    n_back = _drawn_back(environment, mean_back, generator)
    whole = torch.full_like(n_back, environment.max_steps)
    n_back = torch.cat([torch.where(is_crossed, whole, n_back), whole[pairs]])
    walks = walk_back(environment, torch.cat([first, second[pairs]]), n_back, generator)
    steps = steps_of(walks)
    ours, theirs = steps.of(slice(0, n)), steps.of(slice(n, None))
    longest = ours.lengths[pairs] - 1
    cut = torch.minimum(1 + (_uniform(longest, generator) * longest).long(), longest)
    places = torch.zeros_like(steps.lengths)
    places[pairs] = cut
    guide = _mutating(environment, ours, rate, generator)
    crossing = replace(_repeating(theirs, rate[pairs]), shift=cut)
    starts = _states_at(walks, steps, places)[:n]
    return follow(environment, starts, guide.with_rows(pairs, crossing), generator).terminal_states


def grown_inside(
    restricted: Environment, states: Tensor, habit: Habit, generator: torch.Generator
) -> Tensor:
    """A candidate of `restricted` for each of `states`, built as alike as the masks allow.

    `states` `(n, w)` are terminal, of the same space without the restriction.
    """
    steps = steps_of(_whole(restricted, states, generator))
    _, rate = _scales(restricted, habit, states, generator)
    starts = restricted.initial_states(len(states))
    return follow(restricted, starts, _repeating(steps, rate), generator).terminal_states


def is_inside(restricted: Environment, states: Tensor, generator: torch.Generator) -> Tensor:
    """Which terminal states `(n, w)` of the whole space `restricted` allows, `(n,)` bool.

    One trajectory decides: the masks leave out what can no longer satisfy the wish, and nothing
    else.
    """
    walk = _whole(restricted, states, generator)
    is_allowed = walk.masks.gather(1, walk.actions[:, None])[:, 0]
    if walk.amounts is not None:
        asked = torch.where(is_allowed, walk.actions, walk.masks.long().argmax(dim=1))
        is_fit = is_in_range(restricted, walk.states, asked, walk.amounts)
        heads, _ = heads_of(restricted, asked)
        is_allowed = is_allowed & (is_fit | (heads < 0))
    n_refused = torch.zeros(len(states), dtype=torch.long, device=states.device)
    return n_refused.index_add(0, walk.rows, (~is_allowed).long()) == 0


def _drawn_back(environment: Environment, mean_back: Tensor, generator: torch.Generator) -> Tensor:
    """Numbers of steps to go back, geometric with means `mean_back` `(n,)`; `(n,)` int64."""
    drawn = _uniform(mean_back, generator).clamp_min(1e-12).log() / _log_going_on(mean_back)
    return 1 + drawn.clamp(max=environment.max_steps).long()


def _log_going_on(mean_back: Tensor) -> Tensor:
    """Log of the probability of not stopping after a step back."""
    return (-1 / mean_back).log1p()


def _whole(environment: Environment, states: Tensor, generator: torch.Generator) -> Trajectories:
    """A trajectory from the initial state to each of `states`."""
    n_steps = torch.full((len(states),), environment.max_steps, device=states.device)
    return walk_back(environment, states, n_steps, generator)


def _states_at(trajectories: Trajectories, steps: Steps, places: Tensor) -> Tensor:
    """The state of each trajectory before its step number `places` `(n,)`."""
    first = steps.lengths.cumsum(0) - steps.lengths
    return trajectories.states[trajectories.ordered[first + places]]


def _repeating(steps: Steps, rate: Tensor) -> Guide:
    """Repeat `steps`, a share `rate` of them excepted."""
    return Guide(
        steps.actions,
        steps.amounts,
        repeats=1 - rate,
        is_first_new=torch.zeros_like(steps.lengths, dtype=torch.bool),
        shift=torch.zeros_like(steps.lengths),
        reach=torch.full_like(rate, _LARGEST_REACH),
    )


def _mutating(
    environment: Environment, steps: Steps, rate: Tensor, generator: torch.Generator
) -> Guide:
    """Repeat `steps` with a change: the first of them anew, or some doubled or left out.

    What is drawn here does not depend on the steps, and shifts are as likely as their opposites:
    the way back from a mutant draws the same with the same probability.
    """
    n_shifted = _log_uniform(rate, 1.0, environment.max_steps + 0.5, generator).long()
    draws = _uniform(rate, generator)
    sign = (draws < _SHIFTED / 2).long() - ((draws >= _SHIFTED / 2) & (draws < _SHIFTED)).long()
    return Guide(
        steps.actions,
        steps.amounts,
        repeats=1 - rate,
        is_first_new=sign == 0,
        shift=n_shifted * sign,
        reach=_log_uniform(rate, _SMALLEST_REACH, _LARGEST_REACH, generator),
    )


def _scales(
    environment: Environment, habit: Habit, states: Tensor, generator: torch.Generator
) -> tuple[Tensor, Tensor]:
    """Mean number of steps back, and share of new choices, float64 `(n,)` each."""
    most = float(max(environment.max_steps, 1))
    mean_back = _given_or_any(habit.n_back, states, 1.0, most, generator)
    return mean_back, _given_or_any(habit.mutation_rate, states, 1 / most, 1.0, generator)


def _given_or_any(
    given: float | None, states: Tensor, low: float, high: float, generator: torch.Generator
) -> Tensor:
    if given is None:
        return _log_uniform(states, low, high, generator)
    return torch.full((len(states),), given, dtype=torch.float64, device=states.device)


def _log_uniform(like: Tensor, low: float, high: float, generator: torch.Generator) -> Tensor:
    return low * (_uniform(like, generator) * math.log(high / low)).exp()


def _uniform(like: Tensor, generator: torch.Generator) -> Tensor:
    return torch.rand(len(like), generator=generator, dtype=torch.float64, device=like.device)
