import importlib.util
import itertools
import math
import re
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import torch

from sampler.environment import Environment
from sampler.environments.scrabble import LETTERS, SCORES, Scrabble, english_words
from tests.sampler.walks import all_states, check_discrete_laws, random_walks

WORDS = ["a", "ab", "aba", "abc", "bad", "cab", "dad", "zoo", "toolong"]
HAS_WORDS = importlib.util.find_spec("symspellpy") is not None
needs_words = pytest.mark.skipif(not HAS_WORDS, reason="needs the extra `words`")


def finished(space: Environment) -> set[str]:
    states = all_states(space)
    return set(space.keys(states[space.is_terminal(states)]))


def strings(letters: str, high: int) -> list[str]:
    lengths = range(1, high + 1)
    return ["".join(s) for n in lengths for s in itertools.product(letters, repeat=n)]


def satisfies(word: str, where: dict[str, Any]) -> bool:
    low, high = where.get("length", (1, 3))
    return (
        word.startswith(where.get("starts_with", ""))
        and set(word) <= set(where.get("letters", LETTERS))
        and not Counter(where.get("contains", "")) - Counter(word)
        and low <= len(word) <= high
        and (not where.get("is_word") or word in WORDS)
    )


def test_the_laws_hold_at_every_state() -> None:
    check_discrete_laws(Scrabble(2))


def test_the_laws_hold_with_seven_letters() -> None:
    space = Scrabble()
    terminal_states, steps = random_walks(space, 400)
    for parents, actions, _, children in steps:
        assert torch.equal(space.step_back(children, actions), parents)
        backward = space.backward_mask(children)
        assert bool(backward.gather(1, actions[:, None]).all())
        assert bool((backward.sum(1) == 1).all()), "a word has one way to be spelled"
    assert len(steps) <= space.max_steps
    keys = space.keys(terminal_states)
    assert torch.equal(space.from_keys(keys), terminal_states)
    assert torch.equal(space.encode(space.decode(terminal_states)), terminal_states)


def test_exactly_the_strings_are_reached() -> None:
    assert finished(Scrabble(2)) == set(strings(LETTERS, 2))


def test_scores_are_those_of_the_game() -> None:
    space = Scrabble(7)
    assert space.scores(space.encode(["quiz", "a", "jazz"])).tolist() == [22, 1, 29]
    assert space.describe(space.encode(["quiz"])) == [{"word": "quiz", "score": 22}]
    assert sum(SCORES) == 87


def test_only_words_are_rewarded() -> None:
    space = Scrabble(3, vocabulary=WORDS)
    states = space.encode(["cab", "cba", "zoo", "zo"])
    assert space.is_word(states).tolist() == [True, False, True, False]
    expected = [math.log(7), -20.0, math.log(12), -20.0]
    assert space.log_reward(states).tolist() == pytest.approx(expected)
    assert float(space.log_reward(states, not_a_word=-3.0)[1]) == -3.0
    with pytest.raises(ValueError, match="not_a_word"):
        space.log_reward(states, not_a_word=-math.inf)


def test_is_word_agrees_with_the_list_on_every_string() -> None:
    space = Scrabble(3, vocabulary=WORDS)
    texts = strings("abcdoz", 3)
    is_word = space.is_word(space.encode(texts)).tolist()
    assert {t for t, is_one in zip(texts, is_word, strict=True) if is_one} == set(WORDS[:-1])


def test_a_vocabulary_may_be_a_file(tmp_path: Path) -> None:
    path = tmp_path / "words.txt"
    path.write_text("Cab\nit's\nzoo\nlonger\n")
    assert Scrabble(3, vocabulary=str(path)).vocabulary == ["cab", "zoo"]


def test_a_vocabulary_without_fitting_words_is_refused() -> None:
    with pytest.raises(ValueError, match="words of 1 to 3 letters"):
        Scrabble(3, vocabulary=["longer", "it's"]).vocabulary  # noqa: B018


def test_without_the_word_list_only_words_are_missed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    space = Scrabble(7)
    states = random_walks(space, 10)[0]
    assert space.features(states).shape == (10, space.n_features)
    for ask in (space.log_reward, space.is_word, lambda _: space.restricted({"is_word": True})):
        with pytest.raises(ImportError, match=re.escape("pip install 'motherlode[words]'")):
            ask(states)


@needs_words
def test_the_shipped_vocabulary_is_english() -> None:
    space = Scrabble(7)
    assert len(space.vocabulary) > 30_000
    states = space.encode(["cat", "cats", "quiz", "xylem", "teh", "qqqq"])
    assert space.is_word(states).tolist() == [True, True, True, True, False, False]
    assert len(english_words()) > 80_000


@needs_words
def test_every_sample_is_a_word_on_request() -> None:
    space = Scrabble(7)
    where = {"is_word": True, "starts_with": "qu", "length": [4, 6], "contains": "e"}
    terminal_states, _ = random_walks(space.restricted(where), 300)
    wanted = {
        w for w in space.vocabulary if re.fullmatch("qu[a-z]*", w) and "e" in w and 4 <= len(w) <= 6
    }
    assert set(space.keys(terminal_states)) <= wanted
    assert finished(space.restricted(where)) == wanted


@pytest.mark.parametrize(
    "where",
    [
        {"letters": "abz"},
        {"letters": "abc", "starts_with": "ab"},
        {"letters": "abc", "contains": "ca"},
        {"letters": "ab", "contains": "bb"},
        {"letters": "abc", "length": (2, 2), "contains": "c"},
        {"letters": "abc", "starts_with": "b", "contains": "bb", "length": (2, 3)},
        {"is_word": True},
        {"is_word": True, "contains": "a", "length": (3, 3)},
        {"is_word": True, "contains": "dd"},
        {"is_word": True, "letters": "abc", "starts_with": "a"},
    ],
)
def test_a_restriction_reaches_exactly_the_strings_that_obey(where: dict[str, Any]) -> None:
    space = Scrabble(3, vocabulary=WORDS)
    wanted = {text for text in strings("abcdoz", 3) if satisfies(text, where)}
    assert finished(space.restricted(where)) == wanted
    terminal_states, _ = random_walks(space.restricted(where), 100)
    assert set(space.keys(terminal_states)) <= wanted


def test_a_length_may_be_one_number() -> None:
    terminal_states, _ = random_walks(Scrabble(5).restricted({"length": 4}), 100)
    assert bool(((terminal_states[:, :-1] > 0).sum(1) == 4).all())


@pytest.mark.parametrize(
    ("where", "message"),
    [
        ({"length": 4}, "length: no word of 1 to 3 letters"),
        ({"length": [2.2, 2.8]}, "length"),
        ({"starts_with": "zo", "letters": "ab"}, r"starts_with and letters conflict: \['o', 'z'\]"),
        ({"contains": "z", "letters": "ab"}, "contains and letters conflict"),
        ({"starts_with": "ab", "contains": "cd"}, "need 4 letters, but a word may have 3"),
        ({"letters": ""}, "letters: expected at least one"),
        ({"starts_with": "a1"}, "starts_with: expected letters"),
        ({"contains": 3}, "contains: expected letters"),
        ({"is_word": 1}, "is_word: expected true or false"),
        ({"is_word": True, "starts_with": "q"}, "no word of the vocabulary satisfies starts_with"),
        ({"is_word": True, "starts_with": "a", "contains": "d"}, "satisfies contains too"),
        ({"start_with": "q"}, "did you mean 'starts_with'"),
    ],
)
def test_a_restriction_that_cannot_be_met_is_refused(where: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Scrabble(3, vocabulary=WORDS).restricted(where)


@pytest.mark.parametrize("key", ["", "abcd", "Abc", "a-b", "ä"])
def test_keys_outside_the_space_are_refused(key: str) -> None:
    with pytest.raises(ValueError, match=f"word '{key}'"):
        Scrabble(3).from_keys([key])


def test_impossible_options_are_refused() -> None:
    with pytest.raises(ValueError, match="max_length"):
        Scrabble(0)
