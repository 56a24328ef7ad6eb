"""Words as a table, and whether a string can still become one that is wanted."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import torch
from torch import Tensor

from sampler.restriction import check_keys, interval

LETTERS = "abcdefghijklmnopqrstuvwxyz"


class Trie:
    """Words as a table: node × letter → node. Node 0 is a dead end, 1 the root; letter 0 stays."""

    def __init__(self, words: Iterable[str]) -> None:
        children, ends = [[0] * 27, [1, *[0] * 26]], [False, False]
        for word in words:
            node = 1
            for letter in map(ord, word):
                if not children[node][letter - 96]:
                    children[node][letter - 96] = len(children)
                    children.append([len(children), *[0] * 26])
                    ends.append(False)
                node = children[node][letter - 96]
            ends[node] = True
        self.children, self.is_end = torch.tensor(children).flatten(), torch.tensor(ends)

    def nodes(self, letters: Tensor) -> Tensor:
        """Nodes that rows of letters `(n, max_length)` lead to, `(n,)`."""
        nodes = letters.new_ones(len(letters))
        for column in letters.unbind(1):
            nodes = self.children[nodes * 27 + column]
        return nodes


class Wish:
    """A checked `where`: the parts that may conflict are named while it is read."""

    def __init__(self, where: Mapping[str, Any], max_length: int) -> None:
        check_keys(where, ("starts_with", "letters", "contains", "length", "is_word"))
        self.prefix = _spelling(where, "starts_with", "")
        self.letters = frozenset(_spelling(where, "letters", LETTERS))
        self.contains = Counter(_spelling(where, "contains", ""))
        low, high = interval(where.get("length", (1, max_length)), "length")
        self.low, self.high = max(1, math.ceil(low)), min(max_length, math.floor(high))
        self.is_word = where.get("is_word", False)
        if not isinstance(self.is_word, bool):
            raise ValueError(f"where: is_word: expected true or false, got {self.is_word!r}")
        self._check_conflicts(max_length)

    def chosen(self, vocabulary: list[str]) -> list[str]:
        """Words that satisfy all parts. ValueError names the part that leaves none."""
        tests: dict[str, Callable[[str], bool]] = {
            "length": lambda word: self.low <= len(word) <= self.high,
            "starts_with": lambda word: word.startswith(self.prefix),
            "letters": lambda word: self.letters.issuperset(word),
            "contains": lambda word: not self.contains - Counter(word),
        }
        words = vocabulary
        for key, test in tests.items():
            words = [word for word in words if test(word)]
            if not words:
                raise ValueError(f"where: is_word: no word of the vocabulary satisfies {key} too")
        return words

    def _check_conflicts(self, max_length: int) -> None:
        if self.low > self.high:
            raise ValueError(f"where: length: no word of 1 to {max_length} letters has this length")
        for key, text in (("starts_with", self.prefix), ("contains", self.contains)):
            if outside := set(text) - self.letters:
                raise ValueError(f"where: {key} and letters conflict: {sorted(outside)}")
        if not self.letters:
            raise ValueError("where: letters: expected at least one letter")
        needed = len(self.prefix) + (self.contains - Counter(self.prefix)).total()
        if needed > self.high:
            raise ValueError(
                f"where: starts_with and contains need {needed} letters, "
                f"but a word may have {self.high} at most"
            )


class CanSpell:
    """Whether a string can still be completed to the wish, vocabulary aside."""

    def __init__(self, wish: Wish, max_length: int) -> None:
        self.low, self.high = wish.low, wish.high
        self.prefix = torch.tensor(numbers(wish.prefix, max_length))
        self.is_allowed = torch.tensor([True, *(letter in wish.letters for letter in LETTERS)])
        self.needed = torch.tensor([0, *(wish.contains[letter] for letter in LETTERS)])

    def __call__(self, states: Tensor) -> Tensor:
        """Whether each state can, `(n,)` bool."""
        letters = states[:, :-1]
        spelled = torch.where(letters == 0, self.prefix, letters)  # the prefix has to come
        fits = ((spelled == self.prefix) | (self.prefix == 0)).all(1)
        fits &= self.is_allowed[letters].all(1)
        counts = states.new_zeros(len(states), 27)
        counts.scatter_add_(1, spelled, torch.ones_like(spelled))
        missing = (self.needed - counts).clamp_(min=0).sum(1)
        needed, length = (spelled > 0).sum(1) + missing, lengths(states)
        is_done = (needed == length) & (length >= self.low)
        return fits & (needed <= self.high) & (is_done | (states[:, -1] == 0))


class CanBecomeWord:
    """Whether a string begins a word of the trie; once stopped, whether it is one."""

    def __init__(self, trie: Trie) -> None:
        self.trie = trie

    def __call__(self, states: Tensor) -> Tensor:
        """Whether each state can, `(n,)` bool."""
        nodes = self.trie.nodes(states[:, :-1])
        return torch.where(states[:, -1] == 1, self.trie.is_end[nodes], nodes > 0)


def lengths(states: Tensor) -> Tensor:
    """Number of letters, `(n,)` int64."""
    return (states[:, :-1] > 0).sum(1)


def numbers(text: str, width: int) -> list[int]:
    """Letters as 1 … 26, then zeros up to `width`."""
    return [ord(letter) - 96 for letter in text] + [0] * (width - len(text))


def is_spelled(text: str) -> bool:
    """Whether `text` is at least one letter a … z and nothing else."""
    return bool(text) and text.isascii() and text.isalpha() and text.islower()


def _spelling(where: Mapping[str, Any], key: str, default: str) -> str:
    value = where.get(key, default)
    if isinstance(value, list | tuple) and all(isinstance(part, str) for part in value):
        value = "".join(value)
    if not isinstance(value, str) or (value and not is_spelled(value.lower())):
        raise ValueError(f"where: {key}: expected letters a to z, got {value!r}")
    return value.lower()
