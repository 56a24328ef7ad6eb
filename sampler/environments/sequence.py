"""Words over an alphabet: DNA, RNA, peptides, bit strings, of one length or of several."""

from __future__ import annotations

from collections.abc import Mapping
from collections.abc import Sequence as Rows
from typing import Any

import numpy as np
import torch
from torch import Tensor

from sampler.distances import edit
from sampler.environment import Candidate, Environment
from sampler.environments.sequence_where import restricted_words
from sampler.spelling import Spelling

ALPHABETS = {
    "dna": "ACGT",
    "rna": "ACGU",
    "peptide": "ACDEFGHIKLMNPQRSTVWY",
    "bits": "01",
}
"""Names that `Sequence` takes instead of the letters themselves."""


class Sequence(Environment):
    """Words of min_length … max_length letters, written one letter at a time.

    `alphabet`: distinct letters, such as `ACGT`, or a name of `ALPHABETS`. State
    `(max_length,)` int64: letters 1 … k from the left, 0 where nothing is written yet; where
    lengths differ one more column is 1 once stopped. Action i < k appends letter i. With
    `both_ends`, action k + i puts letter i in front instead (the first letter is always appended),
    so that many trajectories lead to a word; else the space is a tree. The last action stops; a
    space of one length has no such action, its words end when they are full.

    A candidate is a `str`. `where` keys: `length` (n or [low, high]), `letters` (only these),
    `contains` (a motif); and, unless `both_ends`, `pattern` (the whole word, `?` for any letter),
    `starts_with`, `ends_with`. Source: autoregressive and prepend/append sequences as in
    Jain et al. 2022 (arXiv 2203.04115) and Shen et al. 2023 (arXiv 2305.07170).
    """

    def __init__(
        self, alphabet: str, min_length: int, max_length: int, both_ends: bool = False
    ) -> None:
        self.alphabet = _checked_alphabet(alphabet)
        if not 1 <= min_length <= max_length:
            raise ValueError(
                "min_length, max_length: expected 1 <= min_length <= max_length, got "
                f"{min_length} and {max_length}"
            )
        self.min_length = min_length
        self.max_length = max_length
        self.both_ends = both_ends
        self.has_stop = min_length < max_length
        n_letters = len(self.alphabet)
        self.n_actions = n_letters * (2 if both_ends else 1) + self.has_stop
        self.n_policy_inputs = max_length * n_letters + self.has_stop
        self.n_features = max_length * n_letters + self.has_stop
        self.max_steps = max_length + self.has_stop
        self.is_tree = not both_ends or max_length == 1
        self._numbers = {letter: i + 1 for i, letter in enumerate(self.alphabet)}
        self._make_tables(n_letters)

    def initial_states(self, n: int) -> Tensor:
        """The empty word."""
        return self._written.new_zeros(n, self.max_length + self.has_stop)

    def forward_mask(self, states: Tensor) -> Tensor:
        """Every letter while there is room, stopping from `min_length` on."""
        filled = states.sign().sum(1)
        if self.has_stop:  # stopped words of length l have the table's row max_length + 1 + l
            filled = torch.add(filled, states[:, -1], alpha=self.max_length)
        return self._allowed.index_select(0, filled)

    def step(self, states: Tensor, actions: Tensor, amounts: Tensor | None = None) -> Tensor:
        """Write a letter at an end, or stop."""
        column = states.sign().sum(1)
        if self.has_stop:
            column = torch.maximum(column, self._stop_column.index_select(0, actions))
        written = self._written.index_select(0, actions).unsqueeze(1)
        children = states.scatter(1, column.unsqueeze(1), written)
        if not self.both_ends:
            return children
        end = self.max_length
        prepended = torch.cat([written, states[:, : end - 1], states[:, end:]], dim=1)
        return torch.where(self._is_prepend.index_select(0, actions), prepended, children)

    def is_terminal(self, states: Tensor) -> Tensor:
        """True once stopped; once full where there is one length."""
        return states[:, -1] > 0

    def backward_mask(self, states: Tensor) -> Tensor:
        """The last letter; with `both_ends` also the first of two or more; or going on."""
        filled = states.sign().sum(1)
        column = (filled - 1).clamp_min_(0).unsqueeze(1)
        last = states.gather(1, column).squeeze(1)
        is_open = None
        if self.has_stop:  # the table's last row is that of stopped words
            stopped = states[:, -1]
            last = torch.maximum(last, stopped * (len(self._undo_last) - 1))
            is_open = 1 - stopped
        mask = self._undo_last.index_select(0, last)
        if not self.both_ends:
            return mask
        first = states[:, 0] * (filled > 1)
        return mask | self._undo_first.index_select(
            0, first if is_open is None else first * is_open
        )

    def step_back(self, states: Tensor, actions: Tensor, amounts: Tensor | None = None) -> Tensor:
        """Remove a letter at an end, or go on."""
        column = states.sign().sum(1) - 1
        if self.has_stop:
            column = torch.maximum(column, self._stop_column.index_select(0, actions))
        parents = states.scatter(1, column.unsqueeze(1), 0)
        if not self.both_ends:
            return parents
        end = self.max_length
        shifted = [states[:, 1:end], states.new_zeros(len(states), 1), states[:, end:]]
        is_prepend = self._is_prepend.index_select(0, actions)
        return torch.where(is_prepend, torch.cat(shifted, dim=1), parents)

    def policy_inputs(self, states: Tensor) -> Tensor:
        """One-hot letters, zeros where none is written, then whether stopped; `(n, p)`."""
        inputs = torch.embedding(self._one_hot, states).flatten(1)
        # The flag goes through the same table: its 1 sets the first of the columns behind.
        return inputs[:, : self.n_policy_inputs] if self.has_stop else inputs

    @property
    def feature_blocks(self) -> tuple[tuple[str, int], ...]:
        """A letter for each place, then the length where lengths differ."""
        letters = (("letter", len(self.alphabet)),) * self.max_length
        return (*letters, ("continuous", 1)) if self.has_stop else letters

    def features(self, states: Tensor) -> Tensor:
        """One-hot letters, then length / max_length where lengths differ; `(n, d)` float64."""
        letters = states[:, : self.max_length]
        one_hot = torch.embedding(self._one_hot, letters).flatten(1).double()
        if not self.has_stop:
            return one_hot
        return torch.cat([one_hot, letters.sign().double().mean(1, keepdim=True)], dim=1)

    def keys(self, states: Tensor) -> list[str]:
        """The words themselves."""
        letters = ["", *self.alphabet]
        rows = states[:, : self.max_length].tolist()
        return ["".join([letters[number] for number in row]) for row in rows]

    def from_keys(self, keys: Rows[str]) -> Tensor:
        """Read what `keys` wrote."""
        width = self.max_length + self.has_stop
        rows = [self._row(key) for key in keys]
        return torch.tensor(rows, dtype=torch.int64, device=self._written.device).reshape(-1, width)

    def decode(self, states: Tensor) -> list[Candidate]:
        """Words, `str` each."""
        return list(self.keys(states))

    def encode(self, candidates: Rows[Candidate]) -> Tensor:
        """States of words; ValueError for a letter outside the alphabet, or the wrong length."""
        return self.from_keys(candidates)

    def distances(self, a: Tensor, b: Tensor) -> Tensor:
        """Edit distance over `max_length`: the share of its letters that must change."""
        return edit(a[:, : self.max_length], b[:, : self.max_length])

    def random_states(self, n: int, generator: torch.Generator) -> Tensor | None:
        """Every length equally often, then uniform letters: random stops favour short words."""
        if not self.has_stop:
            return None
        device, end = self._written.device, self.max_length
        lengths = torch.randint(
            self.min_length, end + 1, (n, 1), generator=generator, device=device
        )
        letters = torch.randint(
            1, len(self.alphabet) + 1, (n, end), generator=generator, device=device
        )
        words = letters * (torch.arange(end, device=device) < lengths)
        return torch.cat([words, words.new_ones(n, 1)], dim=1)

    def describe(self, states: Tensor) -> list[dict[str, str | float | int]]:
        """Columns `sequence` and `length`."""
        return [{"sequence": word, "length": len(word)} for word in self.keys(states)]

    def spelling(self) -> Spelling | None:
        """Step t writes column t, or stops; None with `both_ends`."""
        if self.both_ends:
            return None
        n_letters, end = self.n_actions - self.has_stop, self.max_length
        steps, actions = np.indices((self.max_steps, self.n_actions))
        is_stop = actions >= n_letters
        return Spelling(
            allowed=self._allowed[: self.max_steps].cpu().numpy(),
            is_final=is_stop | (steps == self.max_steps - 1),
            columns=np.where(is_stop, end, steps),
            numbers=np.where(is_stop, 1, actions + 1),
            inputs=np.where(is_stop, end * n_letters, steps * n_letters + actions),
        )

    def restricted(self, where: Mapping[str, Any]) -> Environment:
        """Only words that satisfy `where`; its keys stand in the class docstring."""
        return restricted_words(
            self, where, self.alphabet, (self.min_length, self.max_length), self.both_ends
        )

    def _make_tables(self, n_letters: int) -> None:
        """Tables that answer for a row of a batch by looking up one number."""
        n_moves, end = self.n_actions - self.has_stop, self.max_length
        self._one_hot = torch.cat([torch.zeros(1, n_letters), torch.eye(n_letters)])
        # What an action writes: the number of its letter; 1 into the flag.
        numbers = torch.arange(n_moves) % n_letters + 1
        stop = torch.ones(int(self.has_stop), dtype=torch.int64)
        self._written = torch.cat([numbers, stop])
        self._stop_column = torch.cat([torch.zeros_like(numbers), stop * end])
        actions = torch.arange(self.n_actions)
        self._is_prepend = ((actions >= n_letters) & (actions < n_moves)).unsqueeze(1)
        # Rows: open words of length 0 … end, then (with a stop) stopped ones of length 0 … end.
        length = torch.arange(end + 1).unsqueeze(1)
        letters = (length < end) & ((length > 0) | (torch.arange(n_moves) < n_letters))
        self._allowed = letters
        if self.has_stop:
            open_rows = torch.cat([letters, length >= self.min_length], dim=1)
            self._allowed = torch.cat([open_rows, torch.zeros_like(open_rows)])
        # Rows: no letter, each letter, then (with a stop) stopped.
        number = torch.arange(n_letters + 1).unsqueeze(1)
        is_stop = actions >= n_moves
        self._undo_first = (number == actions - n_letters + 1) & (number > 0) & ~is_stop
        self._undo_last = (number == actions + 1) & (actions < n_letters)
        if self.has_stop:
            self._undo_last = torch.cat([self._undo_last, is_stop.unsqueeze(0)])

    def _row(self, word: Candidate) -> list[int]:
        if not isinstance(word, str):
            raise ValueError(f"expected a word (str) over {self.alphabet!r}, got {word!r}")
        strange = sorted(set(word) - set(self.alphabet))
        if strange:
            raise ValueError(f"{word!r}: letter {strange[0]!r} is not of {self.alphabet!r}")
        if not self.min_length <= len(word) <= self.max_length:
            raise ValueError(
                f"{word!r}: expected {self.min_length} to {self.max_length} letters, "
                f"got {len(word)}"
            )
        numbers = [self._numbers[letter] for letter in word]
        return [*numbers, *[0] * (self.max_length - len(word)), *[1] * self.has_stop]


def _checked_alphabet(alphabet: str) -> str:
    letters = ALPHABETS.get(alphabet, alphabet)
    if len(letters) < 2 or len(set(letters)) < len(letters):
        raise ValueError(
            f"alphabet: expected two or more distinct letters or one of {', '.join(ALPHABETS)}, "
            f"got {alphabet!r}"
        )
    if "?" in letters or any(letter.isspace() for letter in letters):
        raise ValueError(f"alphabet: expected no space and no '?' (any letter), got {alphabet!r}")
    return letters
