import itertools
import re
from typing import Any

import pytest
import torch

from sampler.environment import Environment
from sampler.environments.sequence import Sequence
from tests.sampler.walks import all_states, check_discrete_laws, random_walks

SPACES = {
    "fixed": ("ACGT", 4, 4, False),
    "variable": ("ACGT", 2, 4, False),
    "fixed both ends": ("01", 5, 5, True),
    "variable both ends": ("ABC", 1, 4, True),
    "one letter": ("AB", 1, 1, True),
    "up to two letters": ("AB", 1, 2, True),
}


def finished_words(space: Environment) -> list[str]:
    states = all_states(space)
    return sorted(space.keys(states[space.is_terminal(states)]))


def words(alphabet: str, low: int, high: int) -> list[str]:
    return sorted(
        "".join(letters)
        for n in range(low, high + 1)
        for letters in itertools.product(alphabet, repeat=n)
    )


@pytest.fixture(params=sorted(SPACES))
def space(request: pytest.FixtureRequest) -> Sequence:
    return Sequence(*SPACES[request.param])


def test_exactly_the_words_of_the_space_are_reached(space: Sequence) -> None:
    assert finished_words(space) == words(space.alphabet, space.min_length, space.max_length)


def test_the_laws_hold_at_every_state(space: Sequence) -> None:
    check_discrete_laws(space)


def test_policy_inputs_tell_all_states_apart(space: Sequence) -> None:
    states = all_states(space)
    inputs = space.policy_inputs(states)
    assert set(inputs.unique().tolist()) <= {0.0, 1.0}
    assert len(torch.unique(inputs, dim=0)) == len(states)
    assert bool((inputs != 0).any(0).all()), "an input that is always zero"


def test_features_tell_all_words_apart(space: Sequence) -> None:
    states = all_states(space)
    features = space.features(states[space.is_terminal(states)])
    assert len(torch.unique(features, dim=0)) == len(features)


def test_a_fixed_length_has_no_stop_action() -> None:
    space = Sequence("dna", 30, 30)
    assert (space.n_actions, space.n_policy_inputs, space.max_steps) == (4, 120, 30)
    assert {len(word) for word in space.keys(random_walks(space, 20)[0])} == {30}


def test_a_word_of_one_letter_has_one_parent_and_equal_ends_have_two_edges() -> None:
    space = Sequence("AB", 1, 3, both_ends=True)
    one, two = torch.tensor([[1, 0, 0, 0]]), torch.tensor([[1, 1, 0, 0]])
    assert space.backward_mask(one).tolist() == [[True, False, False, False, False]]
    assert space.backward_mask(two).tolist() == [[True, False, True, False, False]]


def test_describe_has_the_word_and_its_length() -> None:
    space = Sequence("rna", 1, 5)
    assert space.describe(space.from_keys(["GU"])) == [{"sequence": "GU", "length": 2}]


def holds(word: str, where: dict[str, Any]) -> bool:
    """The meaning of a restriction, written down once more."""
    low, high = 0, 99
    if "length" in where:
        wanted = where["length"]
        low, high = (wanted, wanted) if isinstance(wanted, int) else wanted
    pattern = where.get("pattern", "." * len(word)).replace("?", ".")
    return (
        low <= len(word) <= high
        and re.fullmatch(pattern, word) is not None
        and set(word) <= set(where.get("letters", word))
        and where.get("contains", "") in word
        and word.startswith(where.get("starts_with", ""))
        and word.endswith(where.get("ends_with", ""))
    )


ANYWHERE = [
    {"length": 4},
    {"length": [2, 3]},
    {"letters": "AC"},
    {"contains": "A"},
    {"contains": "ABA"},
    {"contains": "AAB"},
    {"contains": "CC", "letters": "CA", "length": [3, 4]},
    {"contains": "ABAB", "length": 5},
    {"contains": "ABCAB"},
]
APPENDED = [
    {"pattern": "A??B"},
    {"pattern": "??", "ends_with": "C"},
    {"starts_with": "AB"},
    {"starts_with": "ABC", "length": [2, 4]},
    {"ends_with": "AAB", "contains": "BA"},
    {"ends_with": "ABA", "starts_with": "AB"},
    {"starts_with": "AB", "ends_with": "BA", "contains": "CC", "letters": "ABC"},
]


@pytest.mark.parametrize(
    ("where", "both_ends"),
    [(where, False) for where in ANYWHERE + APPENDED] + [(where, True) for where in ANYWHERE],
    ids=str,
)
@pytest.mark.parametrize("lengths", [(1, 5), (4, 4), (5, 5)])
def test_a_restriction_leaves_exactly_the_words_it_means(
    where: dict[str, Any], lengths: tuple[int, int], both_ends: bool
) -> None:
    space = Sequence("ABC", *lengths, both_ends=both_ends)
    expected = [word for word in words("ABC", *lengths) if holds(word, where)]
    if not expected:
        with pytest.raises(ValueError, match="satisfies"):
            space.restricted(where)
        return
    narrow = space.restricted(where)
    assert finished_words(narrow) == expected
    states = all_states(narrow)
    assert torch.equal(narrow.forward_mask(states).any(1), ~narrow.is_terminal(states))


def test_samples_of_a_restricted_long_space_obey() -> None:
    where = {"starts_with": "ACG", "contains": "TATA", "ends_with": "ATG", "length": [10, 25]}
    narrow = Sequence("dna", 5, 30).restricted(where)
    sample = narrow.keys(random_walks(narrow, 50)[0])
    assert all(holds(word, where) for word in sample)
    both = Sequence("dna", 30, 30, both_ends=True).restricted({"contains": "TATAAA"})
    assert all("TATAAA" in word for word in both.keys(random_walks(both, 50)[0]))


@pytest.mark.parametrize(
    ("where", "words_of_error"),
    [
        ({"lenght": 3}, "did you mean 'length'"),
        ({"length": 9}, "satisfies length: 9"),
        ({"length": [3.2, 3.8], "letters": "AC"}, r"satisfies length: \[3.2, 3.8\]$"),
        (
            {"letters": "AC", "length": [2, 4], "contains": "GA"},
            "satisfies letters: AC and contains: GA$",
        ),
        ({"pattern": "A???", "length": 3}, r"pattern: A\?\?\? and length: 3"),
        ({"starts_with": "AC", "pattern": "G???"}, "starts_with: AC and pattern"),
        ({"contains": "GN"}, "contains: expected letters of 'ACGT', got 'GN'"),
        ({"letters": ""}, "letters: expected"),
        ({"length": "long"}, "length: expected a number"),
    ],
    ids=str,
)
def test_impossible_and_unknown_restrictions_are_refused(
    where: dict[str, Any], words_of_error: str
) -> None:
    with pytest.raises(ValueError, match=words_of_error):
        Sequence("dna", 2, 4).restricted(where)


def test_where_both_ends_grow_positions_cannot_be_restricted() -> None:
    with pytest.raises(ValueError, match="starts_with: not available"):
        Sequence("dna", 2, 4, both_ends=True).restricted({"starts_with": "A"})
    with pytest.raises(ValueError, match="length: 9"):
        Sequence("dna", 2, 4, both_ends=True).restricted({"length": 9, "contains": "A"})


@pytest.mark.parametrize(
    ("options", "word"),
    [
        (("A", 1, 2), "alphabet"),
        (("AAC", 1, 2), "alphabet"),
        (("AC?", 1, 2), "'\\?'"),
        (("ACGT", 0, 2), "min_length"),
        (("ACGT", 3, 2), "max_length"),
    ],
)
def test_impossible_options_are_refused(options: tuple[str, int, int], word: str) -> None:
    with pytest.raises(ValueError, match=word):
        Sequence(*options)


@pytest.mark.parametrize(
    ("key", "word"), [("AX", "letter 'X'"), ("A", "2 to 4"), ("AAAAA", "2 to 4")]
)
def test_words_outside_the_space_are_refused(key: str, word: str) -> None:
    with pytest.raises(ValueError, match=word):
        Sequence("dna", 2, 4).from_keys([key])
    with pytest.raises(ValueError, match="expected a word"):
        Sequence("dna", 2, 4).encode([3])
