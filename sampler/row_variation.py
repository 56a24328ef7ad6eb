"""Variation of words and of grid points as rows: the field's own operators, without trajectories.

A word is mutated at some places, or a piece is put in or left out; a grid point moves along some
axes. Children of two take every column from either parent, or the beginning from one and the end
from the other. That costs a few tensor operations for all candidates, whatever their length.

Named axes: n candidates, w state columns, k places (letters of a word, axes of a grid).
"""

from __future__ import annotations

import math
from typing import Protocol

import torch
from torch import Tensor

from sampler.environment import Environment
from sampler.environments.hyper_grid import HyperGrid
from sampler.environments.sequence import Sequence

_SHIFTED = 0.25
"""The share of mutations of words that put letters in or leave some out, or both."""
_MOVED = 0.5
"""The share of those that do both, so that the piece between moves and all else stays."""
_NUDGED = 0.5
"""The share of moves along an axis that go a step of a random scale; the others go anywhere."""
_UNIFORM = 0.5
"""The share of children that take each column from either parent."""


class RowOperators(Protocol):
    """Variation of terminal states `(n, w)`; each answer is one too."""

    def mutated(self, states: Tensor, rate: float | None, generator: torch.Generator) -> Tensor:
        """A variant of each, changed at a share `rate` of its places and at one at least.

        None: a share drawn for each candidate, log-uniform from one place to all.
        """

    def crossed(self, first: Tensor, second: Tensor, generator: torch.Generator) -> Tensor:
        """A child of each pair."""


def row_operators(environment: Environment) -> RowOperators | None:
    """Those for a space of words or grid points; None for any other space.

    Also None for a subclass: its candidates may be fewer.
    """
    if type(environment) is Sequence:
        return _Words(environment)
    return _GridPoints(environment) if type(environment) is HyperGrid else None


class _Words:
    def __init__(self, space: Sequence) -> None:
        self._n_letters, self._end = len(space.alphabet), space.max_length
        self._shortest, self._has_stop = space.min_length, space.has_stop

    def mutated(self, states: Tensor, rate: float | None, generator: torch.Generator) -> Tensor:
        letters = states[:, : self._end]
        lengths = letters.sign().sum(1)
        changed = self._substituted(letters, lengths, rate, generator)
        shifted, their_lengths = self._shifted(letters, lengths, generator)
        moved = self._moved(letters, lengths, generator)
        kind = _uniform(lengths, generator) / _SHIFTED
        is_shifted, is_moved = kind < 1, kind < _MOVED
        changed = torch.where(is_shifted[:, None], shifted, changed)
        return self._finished(
            torch.where(is_moved[:, None], moved, changed),
            torch.where(is_shifted & ~is_moved, their_lengths, lengths),
        )

    def crossed(self, first: Tensor, second: Tensor, generator: torch.Generator) -> Tensor:
        ours, theirs = first[:, : self._end], second[:, : self._end]
        lengths = theirs.sign().sum(1)
        # Where the first has no letter any more, the second has.
        is_ours = _inherited(ours, lengths, generator) & (ours > 0)
        return self._finished(torch.where(is_ours, ours, theirs), lengths)

    def _substituted(
        self, letters: Tensor, lengths: Tensor, rate: float | None, generator: torch.Generator
    ) -> Tensor:
        """Other letters at some places."""
        step = torch.randint(
            1, self._n_letters, letters.shape, generator=generator, device=letters.device
        )
        is_changed = _some_places(lengths, self._end, rate, generator)
        return torch.where(is_changed, (letters - 1 + step) % self._n_letters + 1, letters)

    def _shifted(
        self, letters: Tensor, lengths: Tensor, generator: torch.Generator
    ) -> tuple[Tensor, Tensor]:
        """Put letters in at a place, or leave some out from there on; words and their lengths.

        In a space of one length, what is pushed over the end is lost, and random letters fill up.
        """
        places = torch.arange(self._end, device=letters.device)
        at = (_uniform(lengths, generator) * (lengths + 1)).long()
        by = (_log_uniform(lengths, 1.0, self._end + 0.5, generator)).long()
        by = torch.where(_uniform(lengths, generator) < 0.5, by, -by)
        by = torch.maximum(by, at - lengths)  # no more than there are behind the place
        new_lengths = (lengths + by).clamp(self._shortest, self._end)
        source = places - by[:, None] * (places >= at[:, None])
        is_new = (places >= at[:, None]) & (places < (at + by)[:, None])
        is_known = ~is_new & (source < lengths[:, None])
        fresh = torch.randint(
            1, self._n_letters + 1, letters.shape, generator=generator, device=letters.device
        )
        moved = letters.gather(1, source.clamp(0, self._end - 1))
        return torch.where(is_known, moved, fresh), new_lengths

    def _moved(self, letters: Tensor, lengths: Tensor, generator: torch.Generator) -> Tensor:
        """Move a piece to the left or right: letters are left out before it, others put in behind.

        A motif goes to another place and everything else stays, which no shift of all that follows
        does, and hardly any number of other letters.
        """
        places = torch.arange(self._end, device=letters.device)
        cuts = (_uniform(lengths.new_zeros(2, len(lengths)), generator) * (lengths + 1)).long()
        first, last = cuts.amin(0), cuts.amax(0)
        room = (last - first - 1).clamp_min(0)
        by = (room.clamp_min(1).log() * _uniform(lengths, generator)).exp().round().long()
        by = torch.minimum(by, room)
        is_left = _uniform(lengths, generator) < 0.5
        start = torch.where(is_left, last - by, first)  # of the letters that are put in
        is_within = (places >= first[:, None]) & (places < last[:, None])
        is_new = (places >= start[:, None]) & (places < (start + by)[:, None])
        step = torch.where(is_left, by, -by)[:, None]
        source = torch.where(is_within & ~is_new, places + step, places)
        fresh = torch.randint(
            1, self._n_letters + 1, letters.shape, generator=generator, device=letters.device
        )
        return torch.where(is_new, fresh, letters.gather(1, source.clamp(0, self._end - 1)))

    def _finished(self, letters: Tensor, lengths: Tensor) -> Tensor:
        """Terminal states of the first `lengths` `(n,)` letters."""
        places = torch.arange(self._end, device=letters.device)
        letters = letters * (places < lengths[:, None])
        flag = letters.new_ones(len(letters), int(self._has_stop))
        return torch.cat([letters, flag], dim=1)


class _GridPoints:
    def __init__(self, space: HyperGrid) -> None:
        self._n_dims, self._length = space.n_dims, space.length

    def mutated(self, states: Tensor, rate: float | None, generator: torch.Generator) -> Tensor:
        points, n = states[:, :-1], len(states)
        dims = torch.full((n,), self._n_dims, device=states.device)
        is_moved = _some_places(dims, self._n_dims, rate, generator)
        size = _log_uniform(points, 1.0, self._length - 1e-6, generator).long()
        sign = (_uniform(points, generator) < 0.5).long() * 2 - 1
        nudged = points + sign * size
        # A step over the edge goes the other way, and stays inside, or it would end there often.
        is_out = (nudged < 0) | (nudged >= self._length)
        nudged = torch.where(is_out, points - sign * size, nudged).clamp(0, self._length - 1)
        step = torch.randint(
            1, self._length, points.shape, generator=generator, device=states.device
        )
        is_nudged = _uniform(points, generator) < _NUDGED
        moved = torch.where(is_nudged, nudged, (points + step) % self._length)
        return torch.cat([torch.where(is_moved, moved, points), states[:, -1:]], dim=1)

    def crossed(self, first: Tensor, second: Tensor, generator: torch.Generator) -> Tensor:
        dims = torch.full((len(first),), self._n_dims, device=first.device)
        is_ours = _inherited(first[:, :-1], dims, generator)
        points = torch.where(is_ours, first[:, :-1], second[:, :-1])
        return torch.cat([points, first[:, -1:]], dim=1)


def _some_places(lengths: Tensor, k: int, rate: float | None, generator: torch.Generator) -> Tensor:
    """Which of k places change, `(n, k)` bool: one of the first `lengths` `(n,)` at least."""
    if rate is None:
        rates = _log_uniform(lengths, 1 / max(k, 2), 1.0, generator)
    else:
        rates = torch.full(lengths.shape, rate, dtype=torch.float64, device=lengths.device)
    shape = (len(lengths), k)
    draws = torch.rand(shape, generator=generator, dtype=torch.float64, device=lengths.device)
    is_some = draws < rates[:, None]
    one = (_uniform(lengths, generator) * lengths).long()
    is_some[torch.arange(len(lengths), device=lengths.device), one] = True
    return is_some


def _inherited(first: Tensor, lengths: Tensor, generator: torch.Generator) -> Tensor:
    """Which places a child has from its first parent, `(n, k)` bool."""
    places = torch.arange(first.shape[1], device=first.device)
    cut = 1 + (_uniform(lengths, generator) * (lengths - 1)).long()
    is_before = places < cut[:, None]
    is_either = _uniform(first, generator) < 0.5
    is_uniform = _uniform(lengths, generator) < _UNIFORM
    return torch.where(is_uniform[:, None], is_either, is_before)


def _log_uniform(like: Tensor, low: float, high: float, generator: torch.Generator) -> Tensor:
    return low * (_uniform(like, generator) * math.log(high / low)).exp()


def _uniform(like: Tensor, generator: torch.Generator) -> Tensor:
    return torch.rand(like.shape, generator=generator, dtype=torch.float64, device=like.device)
