"""English words, letter by letter, with the letter scores of Scrabble."""

from __future__ import annotations

import importlib.util
import math
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from sampler.distances import edit
from sampler.environment import Candidate, Environment
from sampler.environments.scrabble_where import (
    LETTERS,
    CanBecomeWord,
    CanSpell,
    Trie,
    Wish,
    is_spelled,
    lengths,
    numbers,
)
from sampler.restriction import Restricted

SCORES = (1, 3, 3, 2, 1, 4, 2, 4, 1, 8, 5, 1, 3, 1, 1, 3, 10, 1, 1, 1, 1, 4, 4, 8, 4, 10)
"""Scores of a … z in the English edition of Scrabble."""
STOP = len(LETTERS)


class Scrabble(Environment):
    """Strings of 1 … max_length letters a … z, appended one by one, then stopped.

    State `(max_length + 1)`: letters 1 … 26, 0 where there is none yet, then 1 once stopped.
    Action i < 26 appends a letter, action 26 stops. A candidate is a lower-case `str`. Every
    string is a candidate; `log_reward` tells the words apart. `vocabulary` is a list of words or
    the path of a file with one a line; by default the English one that the package symspellpy
    ships (extra `words`), read at first use. `where` keys: `starts_with`, `letters` (the only ones
    allowed), `contains` (letters that must occur, each as often as it is named), `length`,
    `is_word`. Source: the Scrabble environment of the package gflownet (Alex Hernández-García).
    """

    def __init__(
        self, max_length: int = 7, vocabulary: Sequence[str] | str | Path | None = None
    ) -> None:
        if max_length < 1:
            raise ValueError(f"max_length: expected at least 1, got {max_length}")
        self.max_length = max_length
        self._vocabulary = vocabulary
        self.n_actions = STOP + 1
        self.n_policy_inputs = max_length * 27 + 1
        self.n_features = max_length * 27 + 2
        self.max_steps = max_length + 1
        self._allowed = _allowed_actions(max_length)
        # Row 0: an empty string; row l: its last letter is l; row 27: stopped.
        self._undone = torch.eye(28, dtype=torch.bool)[:, 1:].contiguous()
        self._values = torch.tensor([*range(1, 27), 1])
        self._offsets = torch.arange(max_length) * 27
        self._scores = torch.tensor((0, *SCORES))

    def initial_states(self, n: int) -> Tensor:
        """The empty string."""
        return torch.zeros(n, self.max_length + 1, dtype=torch.int64)

    def forward_mask(self, states: Tensor) -> Tensor:
        """All letters while there is room, and stopping from one letter on."""
        return self._allowed[lengths(states) + (self.max_length + 1) * states[:, -1]]

    def step(self, states: Tensor, actions: Tensor, amounts: Tensor | None = None) -> Tensor:
        """Append a letter, or stop."""
        places = lengths(states).masked_fill_(actions == STOP, self.max_length)
        return states.scatter(1, places[:, None], self._values[actions][:, None])

    def is_terminal(self, states: Tensor) -> Tensor:
        """True once stopped."""
        return states[:, -1] == 1

    def backward_mask(self, states: Tensor) -> Tensor:
        """The last letter; after stopping, only to go on."""
        places = (lengths(states) - 1).clamp_(min=0)
        last = states.gather(1, places[:, None])[:, 0]
        return self._undone[last.masked_fill_(states[:, -1] == 1, 27)]

    def step_back(self, states: Tensor, actions: Tensor, amounts: Tensor | None = None) -> Tensor:
        """Take the last letter off, or go on."""
        places = (lengths(states) - 1).masked_fill_(actions == STOP, self.max_length)
        return states.scatter(1, places[:, None], 0)

    def policy_inputs(self, states: Tensor) -> Tensor:
        """One-hot letters (27 classes a place, one for none), then whether stopped."""
        inputs = torch.zeros(len(states), self.n_policy_inputs, device=states.device)
        inputs.scatter_(1, states[:, :-1] + self._offsets, 1.0)
        inputs[:, -1] = states[:, -1]
        return inputs

    @property
    def feature_blocks(self) -> tuple[tuple[str, int], ...]:
        """A letter for each place (none is one of 27), then length and score."""
        return (*((("letter", 27),) * self.max_length), ("continuous", 2))

    def features(self, states: Tensor) -> Tensor:
        """One-hot letters as above, then length and score, each over its largest; float64."""
        features = states.new_zeros(len(states), self.n_features, dtype=torch.float64)
        features.scatter_(1, states[:, :-1] + self._offsets, 1.0)
        features[:, -2] = lengths(states) / self.max_length
        features[:, -1] = self.scores(states) / (max(SCORES) * self.max_length)
        return features

    def keys(self, states: Tensor) -> list[str]:
        """The string itself."""
        return ["".join(LETTERS[i - 1] for i in row if i) for row in states[:, :-1].tolist()]

    def from_keys(self, keys: Sequence[str]) -> Tensor:
        """Read what `keys` wrote."""
        rows = [self._numbers(key) for key in keys]
        return torch.tensor(rows, dtype=torch.int64).reshape(len(rows), self.max_length + 1)

    def decode(self, states: Tensor) -> list[Candidate]:
        """The strings."""
        return list(self.keys(states))

    def encode(self, candidates: Sequence[Candidate]) -> Tensor:
        """States of strings of lower-case letters."""
        return self.from_keys(candidates)

    def distances(self, a: Tensor, b: Tensor) -> Tensor:
        """Edit distance over `max_length`: the share of its letters that must change."""
        return edit(a[:, : self.max_length], b[:, : self.max_length])

    def describe(self, states: Tensor) -> list[dict[str, str | float | int]]:
        """Columns `word` and `score`."""
        scores = self.scores(states).tolist()
        return [{"word": w, "score": s} for w, s in zip(self.keys(states), scores, strict=True)]

    def scores(self, states: Tensor) -> Tensor:
        """Sum of the letter scores, word or not, `(n,)` int64."""
        return self._scores[states[:, :-1]].sum(1)

    def is_word(self, states: Tensor) -> Tensor:
        """Rows whose letters spell a word of the vocabulary, `(n,)` bool."""
        return self._trie.is_end[self._trie.nodes(states[:, :-1])]

    def log_reward(self, states: Tensor, not_a_word: float = -20.0) -> Tensor:
        """Log of the score of terminal states that are words, else `not_a_word`; `(n,)` float64.

        At -20 all 8.4e9 strings of up to seven letters that are no words weigh 17 together, less
        than 0.01 % of the words.
        """
        if not math.isfinite(not_a_word):
            raise ValueError(f"not_a_word: expected a finite log reward, got {not_a_word}")
        logs = self.scores(states).double().log()
        return logs.masked_fill_(~self.is_word(states), not_a_word)

    @cached_property
    def vocabulary(self) -> list[str]:
        """The words that fit, sorted. ImportError if the default list is not installed."""
        words = self._vocabulary
        if words is None:
            words = english_words()
        elif isinstance(words, str | Path):
            words = Path(words).read_text(encoding="utf-8").split()
        fitting = {w.lower() for w in words if len(w) <= self.max_length and is_spelled(w.lower())}
        if not fitting:
            raise ValueError(
                f"vocabulary: expected words of 1 to {self.max_length} letters a to z, got none"
            )
        return sorted(fitting)

    @cached_property
    def _trie(self) -> Trie:
        return Trie(self.vocabulary)

    def restricted(self, where: Mapping[str, Any]) -> Environment:
        """Keys `starts_with`, `letters`, `contains`, `length` (n or [low, high]), `is_word`."""
        wish = Wish(where, self.max_length)
        if not wish.is_word:
            return Restricted(self, CanSpell(wish, self.max_length), f"{dict(where)}")
        trie = Trie(wish.chosen(self.vocabulary))
        return Restricted(self, CanBecomeWord(trie), f"{dict(where)}")

    def _numbers(self, key: str) -> list[int]:
        if not isinstance(key, str) or not is_spelled(key) or len(key) > self.max_length:
            raise ValueError(
                f"word {key!r}: expected 1 to {self.max_length} lower-case letters a to z"
            )
        return [*numbers(key, self.max_length), 1]


def english_words() -> list[str]:
    """About 82,800 English words, from the package symspellpy (MIT), most frequent first.

    They are the words of SCOWL that occur in Google Books. The file is read, the package is not
    imported. ImportError says how to install it.
    """
    spec = importlib.util.find_spec("symspellpy")
    if spec is None or not spec.submodule_search_locations:
        raise ImportError(
            "scrabble: the English vocabulary is not installed: pip install 'motherlode[words]', "
            "or pass vocabulary=, a list of words or the path of a file with one a line"
        )
    folder = Path(spec.submodule_search_locations[0])
    text = (folder / "frequency_dictionary_en_82_765.txt").read_text(encoding="utf-8-sig")
    return [line.split()[0] for line in text.splitlines()]


def _allowed_actions(max_length: int) -> Tensor:
    """Allowed actions by length, then the same for stopped strings, `(2 · (max_length + 1), 27)`"""
    allowed = torch.zeros(2 * (max_length + 1), STOP + 1, dtype=torch.bool)
    allowed[:max_length, :STOP] = True
    allowed[1 : max_length + 1, STOP] = True
    return allowed
