"""Restrictions of words: exact tests of whether a partial word can still become a wanted one.

Named axes: n rows, l positions 0 … max_length, q automaton states, k letters.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch

from sampler.restriction import Restricted, check_keys, interval

if TYPE_CHECKING:
    from torch import Tensor

    from sampler.environment import Environment

KEYS = ("length", "pattern", "letters", "contains", "starts_with", "ends_with")
BOTH_ENDS_KEYS = ("length", "letters", "contains")


@dataclass
class _Space:
    """What the restrictions need to know of a `Sequence`; tables lie on `device`."""

    alphabet: str
    lengths: tuple[int, int]
    both_ends: bool
    device: torch.device

    @property
    def max_length(self) -> int:
        return self.lengths[1]

    def numbers(self, letters: str) -> list[int]:
        """Indices 0 … k - 1 of letters of the alphabet."""
        return [self.alphabet.index(letter) for letter in letters]


class _Completable:
    """`can_satisfy` of words that grow at their end: a finite automaton and what it can reach.

    The automaton runs over positions: `following[l, q, letter]` (letter 0: none is written, q
    stays). `open_words[l, q]` says whether a word of l letters in state q has a completion, by
    dynamic programming backward from the longest words; `finished[l, q]` whether it is wanted.
    """

    def __init__(self, space: _Space, where: Mapping[str, Any]) -> None:
        motif, suffix = where.get("contains", ""), where.get("ends_with", "")
        inside = _matcher(space, motif, is_absorbing=True)
        at_end = _matcher(space, suffix, is_absorbing=False)
        n_inside, n_end, n_letters = len(inside), len(at_end), len(space.alphabet)
        # The product of both; its last state is dead: a letter stood where it must not.
        joint = (inside[:, None, :] * n_end + at_end[None, :, :]).reshape(-1, n_letters)
        dead = n_inside * n_end
        joint = torch.cat([joint, torch.full((1, n_letters), dead)])
        allowed = _allowed_letters(space, where)
        moves = torch.where(allowed[:, None, :], joint, dead)  # (l, q, k)
        stay = torch.arange(dead + 1).expand(len(moves), -1).unsqueeze(2)
        low, high = _length_range(space, where)
        is_wanted = torch.zeros(dead + 1, dtype=torch.bool)
        is_wanted[dead - 1] = True  # both matched to their end
        lengths = torch.arange(space.max_length + 1)[:, None]
        self.has_stop = space.lengths[0] < space.lengths[1]
        self.max_length = space.max_length
        self.finished = (is_wanted & (low <= lengths) & (lengths <= high)).to(space.device)
        self.open_words = _reachable(self.finished.cpu(), moves, dead).to(space.device)
        self.following = torch.cat([stay, moves], dim=2).to(space.device)

    def __call__(self, states: Tensor) -> Tensor:
        """Whether each state's word can be completed to a wanted one, `(n,)` bool."""
        state = states.new_zeros(len(states))
        for position in range(self.max_length):
            state = self.following[position, state, states[:, position]]
        length = states[:, : self.max_length].sign().sum(1)
        can_be = self.open_words[length, state]
        if not self.has_stop:
            return can_be
        return torch.where(states[:, -1] > 0, self.finished[length, state], can_be)


class _CompletableBothWays:
    """`can_satisfy` of words that grow at both ends: the fewest letters that must be added.

    A motif that a word lacks comes to lie over its right end, its left end, or all of it; so the
    fewest letters are its length less the longest overlap of those kinds.
    """

    def __init__(self, space: _Space, where: Mapping[str, Any]) -> None:
        motif = where.get("contains", "")
        self.low, self.high = _length_range(space, where)
        self.has_stop = space.lengths[0] < space.lengths[1]
        self.max_length, self.n_motif = space.max_length, len(motif)
        letters = space.numbers(where.get("letters", space.alphabet))
        is_allowed = torch.zeros(len(space.alphabet) + 1, dtype=torch.bool)
        is_allowed[torch.tensor([0, *(number + 1 for number in letters)])] = True
        self.is_allowed = is_allowed.to(space.device)
        motif_letters = [number + 1 for number in space.numbers(motif)]
        self.is_impossible = self.low > self.high or not bool(is_allowed[motif_letters].all())
        stay = torch.arange(self.n_motif + 1)[:, None]
        both = [_matcher(space, text, is_absorbing=True) for text in (motif, motif[::-1])]
        self.rightward, self.leftward = (
            torch.cat([stay, table], dim=1).to(space.device) for table in both
        )
        # windows[o]: the motif from its letter o on; -1 behind its end matches no letter.
        windows = torch.full((max(self.n_motif, 1), space.max_length), -1)
        for offset in range(self.n_motif):
            part = [n + 1 for n in space.numbers(motif[offset:])][: space.max_length]
            windows[offset, : len(part)] = torch.tensor(part)
        self.windows = windows.to(space.device)

    def __call__(self, states: Tensor) -> Tensor:
        """Whether each state's word can be completed to a wanted one, `(n,)` bool."""
        words = states[:, : self.max_length]
        length = words.sign().sum(1)
        missing = self._missing(words, length)
        is_possible = self.is_allowed[words].all(1) & (length + missing <= self.high)
        if self.is_impossible:
            is_possible = torch.zeros_like(is_possible)
        if not self.has_stop:
            return is_possible
        is_wanted = is_possible & (missing == 0) & (length >= self.low)
        return torch.where(states[:, -1] > 0, is_wanted, is_possible)

    def _missing(self, words: Tensor, length: Tensor) -> Tensor:
        """The fewest letters after which the word contains the motif, `(n,)` int64."""
        right, left = words.new_zeros(len(words)), words.new_zeros(len(words))
        for position in range(self.max_length):
            right = self.rightward[right, words[:, position]]
            left = self.leftward[left, words[:, self.max_length - 1 - position]]
        is_within = (words[:, None, :] == self.windows) | (words[:, None, :] == 0)
        within = torch.where(is_within.all(2).any(1), length, 0)
        overlap = torch.maximum(torch.maximum(right, left), within)
        return (self.n_motif - overlap).clamp_min(0)


def restricted_words(
    base: Environment,
    where: Mapping[str, Any],
    alphabet: str,
    lengths: tuple[int, int],
    both_ends: bool,
) -> Environment:
    """Restrict the `Sequence` `base`; ValueError names the keys of `where` that conflict."""
    check_keys(where, KEYS)
    space = _Space(alphabet, lengths, both_ends, base.initial_states(0).device)
    for key, value in where.items():
        _check(space, key, value)
    make = _CompletableBothWays if both_ends else _Completable

    def is_possible(part: Mapping[str, Any]) -> bool:
        return bool(make(space, part)(base.initial_states(1)).all())

    if not is_possible(where):
        conflict = _smallest_conflict(where, is_possible)
        raise ValueError(
            f"where: no word of {lengths[0]} to {lengths[1]} letters satisfies {_text(conflict)}"
        )
    return Restricted(base, make(space, where), _text(where))


def _smallest_conflict(
    where: Mapping[str, Any], is_possible: Callable[[Mapping[str, Any]], bool]
) -> dict[str, Any]:
    """Leave out keys as long as what remains is impossible."""
    conflict = dict(where)
    for key in where:
        rest = {name: value for name, value in conflict.items() if name != key}
        if rest and not is_possible(rest):
            conflict = rest
    return conflict


def _text(where: Mapping[str, Any]) -> str:
    return " and ".join(f"{key}: {value}" for key, value in where.items())


def _check(space: _Space, key: str, value: Any) -> None:
    """ValueError for a value that means nothing here."""
    if space.both_ends and key not in BOTH_ENDS_KEYS:
        raise ValueError(
            f"where: {key}: not available in a sequence that grows at both ends; expected "
            f"{', '.join(BOTH_ENDS_KEYS)}, or make the space with both_ends=False"
        )
    if key == "length":
        interval(value, key)
        return
    known = space.alphabet + ("?" if key == "pattern" else "")
    if not isinstance(value, str) or not value or not set(value) <= set(known):
        raise ValueError(f"where: {key}: expected letters of {known!r}, got {value!r}")


def _length_range(space: _Space, where: Mapping[str, Any]) -> tuple[int, int]:
    """Smallest and largest length that `where` leaves; none when low > high."""
    low, high = space.lengths
    low = max(low, len(where.get("starts_with", "")))
    if "length" in where:
        shortest, longest = interval(where["length"], "length")
        low, high = max(low, math.ceil(shortest)), min(high, math.floor(longest))
    if "pattern" in where:
        low, high = max(low, len(where["pattern"])), min(high, len(where["pattern"]))
    return low, high


def _allowed_letters(space: _Space, where: Mapping[str, Any]) -> Tensor:
    """Letters that may stand at each position, `(l, k)` bool."""
    allowed = torch.zeros(space.max_length, len(space.alphabet), dtype=torch.bool)
    allowed[:, space.numbers(where.get("letters", space.alphabet))] = True
    for key in ("pattern", "starts_with"):
        for position, letter in enumerate(where.get(key, "")[: space.max_length]):
            if letter != "?":
                only = torch.zeros(len(space.alphabet), dtype=torch.bool)
                only[space.numbers(letter)] = True
                allowed[position] &= only
    return allowed


def _matcher(space: _Space, text: str, *, is_absorbing: bool) -> Tensor:
    """Automaton of Knuth, Morris and Pratt (1977): `(len(text) + 1, k)` int64.

    State q: the longest prefix of `text` that the letters so far end with has q letters. With
    `is_absorbing` the last state, the whole text, is never left.
    """
    n = len(text)
    table = torch.zeros(n + 1, len(space.alphabet), dtype=torch.int64)
    fallback = 0  # where the automaton stands after text[1:q]
    for state in range(n + 1):
        table[state] = table[fallback]  # row 0 falls back to itself: zeros
        if state < n:
            number = space.numbers(text[state])[0]
            following = int(table[fallback, number])
            table[state, number] = state + 1
            fallback = following if state > 0 else 0
    if is_absorbing:
        table[n] = n
    return table


def _reachable(finished: Tensor, moves: Tensor, dead: int) -> Tensor:
    """Whether `finished` holds now or after some more letters, `(l + 1, q)` bool."""
    reachable = finished.clone()
    for position in reversed(range(len(moves))):
        reachable[position] |= reachable[position + 1][moves[position]].any(1)
    reachable[:, dead] = False
    return reachable
