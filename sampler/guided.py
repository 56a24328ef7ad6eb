"""Trajectories that follow a guide: repeat its choices as far as the masks allow, draw the rest.

What variation operators are made of in every space: a choice is repeated or drawn from the
environment's own masks and ranges, so that each result is a candidate, without dead ends.
A guided trajectory has a density, which makes Metropolis-Hastings with it exact.

Named axes: n trajectories, m rows that go on, t transitions of all of them, s steps, w columns.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from sampler import amounts as mixtures
from sampler.environment import Environment
from sampler.rollout import (
    Behaviour,
    Noise,
    Trajectories,
    check_choices,
    check_length,
    choose,
    heads_of,
)
from sampler.trajectories import columns

_NUDGED = 0.5
"""The share of amounts that are drawn near the guide's, where its action is taken with a new one"""


@dataclass(frozen=True)
class Guide:
    """Steps to follow, one row a trajectory, and how closely.

    At its step s a trajectory repeats step s + `shift` of the guide, its amount too, with
    probability `repeats` where it is allowed. Where there is no step so early it is step s, if that
    has no amount: shifting by -k doubles k steps, shifting by k leaves out k. Otherwise, and in the
    first step where `is_first_new`, the action is drawn uniformly from those allowed. Its amount
    is uniform in its range, or, where the action is the guide's, with probability one half uniform
    within `reach` of the guide's amount.
    """

    actions: Tensor  # (n, s): -1 beyond the guide's end
    amounts: Tensor | None  # (n, s); None in a discrete space
    repeats: Tensor  # (n,), float64
    is_first_new: Tensor  # (n,) bool
    shift: Tensor  # (n,), int64
    reach: Tensor  # (n,), float64: above 0, at most 0.5

    def with_rows(self, rows: Tensor, other: Guide) -> Guide:
        """This guide with those `rows` `(m,)` replaced by the m rows of `other`."""
        amounts = self.amounts
        if amounts is not None and other.amounts is not None:
            amounts = amounts.index_copy(0, rows, other.amounts)
        return Guide(
            self.actions.index_copy(0, rows, other.actions),
            amounts,
            repeats=self.repeats.index_copy(0, rows, other.repeats),
            is_first_new=self.is_first_new.index_copy(0, rows, other.is_first_new),
            shift=self.shift.index_copy(0, rows, other.shift),
            reach=self.reach.index_copy(0, rows, other.reach),
        )


@dataclass(frozen=True)
class Steps:
    """The choices of trajectories as a table."""

    actions: Tensor  # (n, s): -1 beyond the end
    amounts: Tensor | None  # (n, s)
    lengths: Tensor  # (n,)

    def of(self, rows: slice) -> Steps:
        """Those of some of the trajectories."""
        amounts = None if self.amounts is None else self.amounts[rows]
        return Steps(self.actions[rows], amounts, self.lengths[rows])


def places_of(trajectories: Trajectories) -> Tensor:
    """The number of its step, from 0, that each transition is, `(t,)`."""
    rows, order = trajectories.rows, trajectories.ordered
    lengths = rows.bincount(minlength=len(trajectories))
    first = lengths.cumsum(0) - lengths
    places = torch.empty_like(rows)
    places[order] = torch.arange(len(rows), device=rows.device) - first[rows[order]]
    return places


def steps_of(trajectories: Trajectories) -> Steps:
    """The choices of `trajectories` in the order of their steps."""
    rows, places = trajectories.rows, places_of(trajectories)
    lengths = rows.bincount(minlength=len(trajectories))
    shape = (len(trajectories), int(lengths.max()) if len(lengths) > 0 else 0)
    actions = rows.new_full(shape, -1)
    actions[rows, places] = trajectories.actions
    if trajectories.amounts is None:
        return Steps(actions, None, lengths)
    amounts = trajectories.amounts.new_zeros(shape)
    amounts[rows, places] = trajectories.amounts
    return Steps(actions, amounts, lengths)


def follow(
    environment: Environment, starts: Tensor, guide: Guide, generator: torch.Generator
) -> Trajectories:
    """Go from each of `starts` `(n, w)`, none of them terminal, to a candidate along its guide.

    RuntimeError at a dead end, and beyond `max_steps`; both name a state.
    """
    states = starts
    rows = torch.arange(len(states), device=states.device)
    noise = Noise(environment.n_actions, generator, 0.0)
    terminal_states = states.clone()
    steps: list[tuple[Tensor, ...]] = []
    while len(rows) > 0 or not steps:
        check_length(environment.max_steps, len(steps), states)
        masks = environment.forward_mask(states)
        drawn = choose(states, masks, noise, Behaviour())
        check_choices(states, masks, drawn)
        offer = _offered(environment, guide, rows, torch.full_like(rows, len(steps)), states, masks)
        is_repeated = offer.is_allowed & (_uniform(rows, generator) < offer.repeats)
        actions = torch.where(is_repeated, offer.actions, drawn)
        if environment.action_heads is None:
            children = environment.step(states, actions)
            extra: tuple[Tensor, ...] = ()
        else:
            assert offer.amounts is not None  # noqa: S101 - the space is continuous
            new = _new_amounts(environment, states, actions, offer, generator)
            amounts = torch.where(is_repeated, offer.amounts, new)
            children = environment.step(states, actions, amounts)
            extra = (amounts,)
        steps.append((rows, states, actions, children, masks, *extra))
        is_done = environment.is_terminal(children)
        terminal_states[rows[is_done]] = children[is_done]
        states, rows = children[~is_done], rows[~is_done]
    rows, states, actions, children, masks, *drawn_amounts = columns(steps)
    amounts_or_none = drawn_amounts[0] if drawn_amounts else None
    return Trajectories(terminal_states, rows, states, actions, amounts_or_none, children, masks)


def log_density(environment: Environment, trajectories: Trajectories, guide: Guide) -> Tensor:
    """Log of the density with which `follow` draws `trajectories` from their starts, `(n,)`.

    The density is one over states. A repeated amount is an atom at the guide's amount; going the
    other way it is one too, so that in a ratio of both directions the atoms cancel. float64; -inf
    where it cannot happen.
    """
    rows, actions, states = trajectories.rows, trajectories.actions, trajectories.states
    places = places_of(trajectories)
    offer = _offered(environment, guide, rows, places, states, trajectories.masks)
    repeats = torch.where(offer.is_allowed, offer.repeats, 0.0)
    drawn = (1 - repeats) / trajectories.masks.sum(dim=1)
    is_same = offer.is_allowed & (actions == offer.actions)
    logs = torch.where(is_same, drawn + repeats, drawn).log()
    if trajectories.amounts is not None:
        assert offer.amounts is not None  # noqa: S101 - the space is continuous
        heads, _ = heads_of(environment, actions)
        amounts = trajectories.amounts
        is_copy = is_same & (amounts == offer.amounts) & (repeats > 0)
        new = drawn.log() + _log_new_amounts(environment, states, actions, amounts, offer)
        with_amount = torch.where(is_copy, repeats.log(), new)
        with_amount = with_amount - environment.log_width(states, actions)
        logs = torch.where(heads >= 0, with_amount, logs)
    return logs.new_zeros(len(trajectories)).index_add(0, rows, logs)


def log_backward(environment: Environment, trajectories: Trajectories) -> Tensor:
    """Log of the density of going back along `trajectories`, uniformly over parents, `(n,)`."""
    children, actions = trajectories.children, trajectories.actions
    logs = -environment.backward_mask(children).sum(dim=1).double().log()
    if environment.action_heads is not None:
        logs = logs - environment.log_width_back(children, actions)
    return logs.new_zeros(len(trajectories)).index_add(0, trajectories.rows, logs)


def log_uniform(environment: Environment, trajectories: Trajectories) -> Tensor:
    """Log of the density of `trajectories` where every choice is uniform, `(n,)`."""
    states, actions = trajectories.states, trajectories.actions
    logs = -trajectories.masks.sum(dim=1).double().log()
    if environment.action_heads is not None:
        has_amount = heads_of(environment, actions)[0] >= 0
        span = (
            environment.log_width(states, actions) + _span(environment, states, actions).width.log()
        )
        logs = torch.where(has_amount, logs - span, logs)
    return logs.new_zeros(len(trajectories)).index_add(0, trajectories.rows, logs)


@dataclass(frozen=True)
class _Offer:
    """What the guide would do next, `(m,)` each; its action is 0 where it has none."""

    actions: Tensor
    amounts: Tensor | None
    is_allowed: Tensor
    repeats: Tensor
    reach: Tensor


def _offered(
    environment: Environment,
    guide: Guide,
    rows: Tensor,
    places: Tensor,
    states: Tensor,
    masks: Tensor,
) -> _Offer:
    """What the guides of `rows` say about step `places`; whether masks and ranges allow it."""
    n_steps = guide.actions.shape[1]
    shifted = places + guide.shift[rows]
    is_doubled = shifted < 0
    shifted = torch.where(is_doubled, places, shifted)
    at = shifted.clamp(max=max(n_steps - 1, 0))
    wanted = torch.where(shifted < n_steps, guide.actions[rows, at], -1)
    if environment.action_heads is not None:
        # Of a real number there is no second copy: no density would lead back from it.
        has_amount = heads_of(environment, wanted.clamp_min(0))[0] >= 0
        wanted = wanted.masked_fill(is_doubled & has_amount, -1)
    actions = wanted.clamp_min(0)
    is_allowed = (wanted >= 0) & masks.gather(1, actions[:, None])[:, 0]
    is_new = guide.is_first_new[rows] & (places == 0)
    repeats, reach = guide.repeats[rows].masked_fill(is_new, 0.0), guide.reach[rows]
    if guide.amounts is None:
        return _Offer(actions, None, is_allowed, repeats, reach)
    amounts = guide.amounts[rows, at]
    # Ranges are those of allowed actions: another one is asked where the guide's is not.
    asked = torch.where(is_allowed, actions, masks.long().argmax(dim=1))
    heads, _ = heads_of(environment, asked)
    is_inside = is_in_range(environment, states, asked, amounts)
    return _Offer(actions, amounts, is_allowed & (is_inside | (heads < 0)), repeats, reach)


def is_in_range(
    environment: Environment, states: Tensor, actions: Tensor, amounts: Tensor
) -> Tensor:
    """Whether `amounts` `(m,)` lie in the ranges that the states leave the actions, `(m,)` bool."""
    span = _span(environment, states, actions)
    return span.place(amounts).ge(0) & span.place(amounts).le(span.width)


@dataclass(frozen=True)
class _Span:
    """The range of an amount, `(m,)` each. On a circle, places are counted from `low` onward."""

    low: Tensor
    width: Tensor
    is_circular: Tensor

    @property
    def is_round(self) -> Tensor:
        """Whether it has no ends."""
        return self.is_circular & (self.width >= 1)

    def place(self, amounts: Tensor) -> Tensor:
        """How far behind `low` the amounts lie."""
        behind = amounts - self.low
        return torch.where(self.is_circular, behind.remainder(1.0), behind)

    def window(self, places: Tensor, reach: Tensor) -> tuple[Tensor, Tensor]:
        """From where to where it runs, within `reach` of `places`."""
        first, last = places - reach, places + reach
        bounded = first.clamp_min(0.0), torch.minimum(last, self.width)
        return torch.where(self.is_round, first, bounded[0]), torch.where(
            self.is_round, last, bounded[1]
        )


def _span(environment: Environment, states: Tensor, actions: Tensor) -> _Span:
    low, high = environment.amount_range(states, actions)
    return _Span(low, mixtures.range_width(low, high), heads_of(environment, actions)[1])


def _new_amounts(
    environment: Environment,
    states: Tensor,
    actions: Tensor,
    offer: _Offer,
    generator: torch.Generator,
) -> Tensor:
    """Amounts of drawn actions, `(m,)`: uniform in their range, or near the guide's."""
    assert offer.amounts is not None  # noqa: S101
    span = _span(environment, states, actions)
    first, last = span.window(span.place(offer.amounts), offer.reach)
    is_same = offer.is_allowed & (actions == offer.actions)
    is_nudged = is_same & (_uniform(actions, generator) < _NUDGED)
    first = torch.where(is_nudged, first, 0.0)
    last = torch.where(is_nudged, last, span.width)
    return (span.low + first + (last - first) * _uniform(actions, generator)).remainder(1.0)


def _log_new_amounts(
    environment: Environment, states: Tensor, actions: Tensor, amounts: Tensor, offer: _Offer
) -> Tensor:
    """Log of the density that `_new_amounts` draws `amounts` from, `(m,)`."""
    assert offer.amounts is not None  # noqa: S101
    span = _span(environment, states, actions)
    centre = span.place(offer.amounts)
    first, last = span.window(centre, offer.reach)
    distance = (span.place(amounts) - centre).abs()
    distance = torch.where(span.is_round, torch.minimum(distance, 1 - distance), distance)
    near = (distance <= offer.reach) / (last - first)
    is_same = offer.is_allowed & (actions == offer.actions)
    mixed = _NUDGED * near + (1 - _NUDGED) / span.width
    return torch.where(is_same, mixed, 1 / span.width).log()


def _uniform(like: Tensor, generator: torch.Generator) -> Tensor:
    return torch.rand(len(like), generator=generator, dtype=torch.float64, device=like.device)
