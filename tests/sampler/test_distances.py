"""Distances against hand-computed values and a plain reference."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from sampler import distances, environment
from sampler.distances import circular, edit, euclidean, hamming, tanimoto


def tensor(*rows: list[float]) -> Tensor:
    return torch.tensor(rows, dtype=torch.float64)


def levenshtein(a: str, b: str) -> int:
    """Wagner and Fischer 1974, one pair at a time."""
    row = list(range(len(b) + 1))
    for i, x in enumerate(a, 1):
        before, row[0] = row[0], i
        for j, y in enumerate(b, 1):
            before, row[j] = row[j], min(row[j] + 1, row[j - 1] + 1, before + (x != y))
    return row[-1]


WORDS = st.lists(st.text("abc", max_size=7), min_size=1, max_size=6)


def numbers(words: list[str], width: int) -> Tensor:
    rows = [[1 + "abc".index(x) for x in word] + [0] * (width - len(word)) for word in words]
    return torch.tensor(rows, dtype=torch.int64).reshape(len(words), width)


@settings(max_examples=80)
@given(WORDS, WORDS)
def test_law_edits_are_levenshteins(a: list[str], b: list[str]) -> None:
    apart = edit(numbers(a, 7), numbers(b, 7)) * 7
    expected = tensor(*[[levenshtein(x, y) for y in b] for x in a])
    torch.testing.assert_close(apart, expected)


def test_edits_are_the_same_in_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    words = torch.randint(1, 5, (23, 9), generator=torch.Generator().manual_seed(0))
    whole = edit(words, words)
    monkeypatch.setattr(distances, "_CHUNK", 500)
    assert torch.equal(edit(words, words), whole)
    assert edit(words[:0], words).shape == (0, 23)


def test_words_differ_by_the_letters_that_change() -> None:
    space = environment("sequence", alphabet="ACGT", min_length=2, max_length=8)
    words = space.from_keys(["ACGT", "ACGA", "CGT", "ACGTACGT"])
    apart = space.distances(words[:1], words) * 8
    assert apart.tolist() == [[0, 1, 1, 4]]


def test_corners_of_a_box_are_one_apart() -> None:
    assert euclidean(tensor([0, 0, 0]), tensor([1, 1, 1], [0, 0, 0])).tolist() == [[1.0, 0.0]]
    assert float(euclidean(tensor([0, 0]), tensor([0.3, 0.4]))) == pytest.approx(0.5 / math.sqrt(2))


def test_angles_go_the_shorter_way_round() -> None:
    apart = circular(tensor([0.95]), tensor([0.05], [0.45], [0.95]))
    torch.testing.assert_close(apart, tensor([0.2, 1.0, 0.0]))
    assert float(circular(tensor([0.0, 0.0]), tensor([0.5, 0.0]))) == pytest.approx(math.sqrt(0.5))


def test_angles_of_every_torus_are_compared_alike() -> None:
    walk = environment("torus", n_dims=2, n_angles=8, n_steps=8)
    levels = environment("torus", n_dims=2, n_angles=8)
    keys = ["0,0", "7,1", "4,3"]
    a, b = walk.from_keys(keys), levels.from_keys(keys)
    smooth = environment("torus", n_dims=2)
    c = smooth.encode(levels.decode(b))
    torch.testing.assert_close(walk.distances(a, a), levels.distances(b, b))
    torch.testing.assert_close(smooth.distances(c, c), levels.distances(b, b), rtol=0, atol=1e-8)


def test_subsets_are_compared_by_what_they_share() -> None:
    a = tensor([1, 1, 0, 0], [0, 0, 0, 0])
    b = tensor([1, 0, 1, 0], [0, 0, 0, 0], [1, 1, 0, 0])
    torch.testing.assert_close(tanimoto(a, b), tensor([2 / 3, 1, 0], [1, 0, 1]))


def test_hamming_counts_columns() -> None:
    assert hamming(tensor([1, 2, 3, 4]), tensor([1, 2, 0, 0], [1, 2, 3, 4])).tolist() == [[0.5, 0]]


def test_crystals_differ_by_composition_cell_and_symmetry() -> None:
    space = environment("crystal", elements=["Mg", "Ca", "O"], space_groups=[62, 216, 225])
    salt = "Mg4 O4 | 225 | 4.2100 4.2100 4.2100 | 90.00 90.00 90.00"
    keys = [
        salt,
        "Ca4 O4 | 225 | 4.2100 4.2100 4.2100 | 90.00 90.00 90.00",  # half of its atoms
        "Mg4 O4 | 225 | 8.4200 8.4200 8.4200 | 90.00 90.00 90.00",  # twice the lengths
        "Mg4 O4 | 216 | 4.2100 4.2100 4.2100 | 90.00 90.00 90.00",  # the same lattice system
        "Mg4 O4 | 62 | 4.2100 4.2100 4.2100 | 90.00 90.00 90.00",
    ]
    states = space.from_keys(keys)
    stretched = 1 - math.exp(-math.log(2) * math.sqrt(3 / 7))
    expected = tensor([0, 0.5 / 3, stretched / 3, 0.5 / 3, 1 / 3])
    torch.testing.assert_close(space.distances(states[:1], states), expected)


def test_a_stack_averages_its_parts() -> None:
    parts = {
        "word": {"kind": "sequence", "alphabet": "AB", "min_length": 2, "max_length": 2},
        "point": {"kind": "hypercube", "n_dims": 1, "bounds": [(0.0, 1.0)]},
    }
    space = environment("stack", parts=parts)
    states = space.encode([{"word": "AA", "point": [0.25]}, {"word": "AB", "point": [0.75]}])
    assert float(space.distances(states[:1], states[1:])) == pytest.approx(0.5, abs=1e-8)
