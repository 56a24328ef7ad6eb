"""What the columns of a row of features are: numbers, choices, letters of words, sets of items.

Plain data, `((kind, number of columns), ...)` from the left, so that whoever makes the features
can say it without knowing a model. Kinds: `continuous`; `categorical`, one one-hot choice;
`letter`, one place of a word, one-hot or all zeros where nothing is written (neighbouring places
with one number of columns spell one word); `set`, membership of each item, 0 or 1.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import groupby

Blocks = tuple[tuple[str, int], ...]

_KINDS = ("continuous", "categorical", "letter", "set")


@dataclass(frozen=True)
class Word:
    """Columns `start … start + n_places · n_letters` that spell a word."""

    start: int
    n_places: int
    n_letters: int

    @property
    def columns(self) -> slice:
        """Its columns."""
        return slice(self.start, self.start + self.n_places * self.n_letters)


@dataclass(frozen=True)
class Layout:
    """Columns by what they are.

    `choices` are the columns of each one-hot choice, places of words and items of sets (one
    column each) among them: whatever can agree or not.
    """

    n_columns: int
    continuous: tuple[int, ...]
    choices: tuple[slice, ...]
    words: tuple[Word, ...]
    sets: tuple[slice, ...]

    @property
    def is_continuous(self) -> bool:
        """Whether there is nothing but numbers."""
        return len(self.continuous) == self.n_columns


def layout(blocks: Blocks | None, n_columns: int) -> Layout:
    """Columns by what `blocks` say they are; None: all continuous.

    ValueError for an unknown kind, a width below 1, or widths that do not add up to `n_columns`.
    """
    placed = list(_placed((("continuous", n_columns),) if blocks is None else blocks))
    total = placed[-1][1].stop if placed else 0
    if total != n_columns:
        raise ValueError(
            f"expected feature_blocks that add up to the {n_columns} features, got {total}"
        )
    return Layout(
        n_columns,
        continuous=tuple(i for kind, at in placed if kind == "continuous" for i in _range(at)),
        choices=tuple(choice for kind, at in placed for choice in _choices(kind, at)),
        words=tuple(_words(placed)),
        sets=tuple(at for kind, at in placed if kind == "set"),
    )


def _placed(blocks: Blocks) -> Iterator[tuple[str, slice]]:
    start = 0
    for kind, width in blocks:
        if kind not in _KINDS or width < 1:
            raise ValueError(
                f"expected feature_blocks of (kind, columns >= 1) with a kind of "
                f"{', '.join(_KINDS)}, got ({kind!r}, {width})"
            )
        yield kind, slice(start, start + width)
        start += width


def _choices(kind: str, at: slice) -> list[slice]:
    if kind == "continuous":
        return []
    return [slice(i, i + 1) for i in _range(at)] if kind == "set" else [at]


def _words(placed: list[tuple[str, slice]]) -> Iterator[Word]:
    """Runs of two or more letters of one width: a single letter is but a choice."""
    for (kind, width), run in groupby(placed, key=lambda one: (one[0], one[1].stop - one[1].start)):
        places = list(run)
        if kind == "letter" and len(places) > 1:
            yield Word(places[0][1].start, len(places), width)


def _range(at: slice) -> range:
    return range(at.start, at.stop)
