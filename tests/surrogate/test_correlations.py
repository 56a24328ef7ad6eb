import math

import pytest
import torch
from botorch.models.kernels import CategoricalKernel
from torch import Tensor

from surrogate.auto import Auto
from surrogate.blocks import layout
from surrogate.correlations import Correlation
from surrogate.encoded import compare, encode, word_motifs
from surrogate.fitting import _closure
from surrogate.gp import GP
from surrogate.kernels import JointPrior
from surrogate.posterior import Observations

LETTERS, PLACES = 4, 6
WORDS = (("letter", LETTERS),) * PLACES
MIXED = (("continuous", 2), ("categorical", 3), *WORDS, ("set", 5), ("continuous", 1))
SPACES = {
    "continuous": (("continuous", 3),),
    "categorical": (("categorical", 3), ("categorical", 2)),
    "words": WORDS,
    "sets": (("set", 5),),
    "mixed": MIXED,
}


def _one_hot(n: int, width: int, generator: torch.Generator) -> Tensor:
    chosen = torch.randint(width, (n,), generator=generator)
    return torch.nn.functional.one_hot(chosen, width).double()


def _rows(blocks, n: int = 20, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    parts = []
    for kind, width in blocks:
        if kind in ("categorical", "letter"):
            parts.append(_one_hot(n, width, generator))
        else:
            drawn = torch.rand(n, width, generator=generator, dtype=torch.float64)
            parts.append((drawn > 0.5).double() if kind == "set" else drawn)
    return torch.cat(parts, 1)


def _word(text: str) -> Tensor:
    """`ABCD` and `.` for nothing written, one row."""
    rows = [[float(letter == other) for other in "ABCD"] for letter in text]
    return torch.tensor(rows, dtype=torch.float64).reshape(1, -1)


def _random(blocks, d: int, seed: int = 0) -> Correlation:
    prior = JointPrior(d, 1, is_correlated=False, blocks=blocks)
    prior.randomise(torch.Generator().manual_seed(seed))
    return prior.target_kernel


def _between(kernel: Correlation, blocks, a: Tensor, b: Tensor) -> Tensor:
    columns = layout(blocks, a.shape[1])
    return kernel(compare(encode(a, columns), encode(b, columns))).detach()


@pytest.mark.parametrize("space", SPACES)
@pytest.mark.parametrize("seed", range(3))
def test_correlations_are_symmetric_positive_and_one_with_oneself(space, seed):
    blocks = SPACES[space]
    x = _rows(blocks)
    k = _between(_random(blocks, x.shape[1], seed), blocks, x, x)
    torch.testing.assert_close(k, k.T)
    torch.testing.assert_close(k.diagonal(), torch.ones(20, dtype=torch.float64))
    assert torch.linalg.eigvalsh(k).min() > -1e-9


PEPTIDES = (("letter", 20),) * 7


@pytest.mark.parametrize("blocks", [*SPACES.values(), PEPTIDES], ids=[*SPACES, "peptides"])
@pytest.mark.parametrize("is_of_many", [False, True])
def test_correlations_with_fixed_rows_are_the_same(blocks, is_of_many):
    """PEPTIDES have so many pairs of letters that theirs are looked up."""
    x = _rows(blocks)
    x[0, -20:] = 0.0  # words, and sets, may be short
    columns = layout(blocks, x.shape[1])
    prior = JointPrior(x.shape[1], 1, False, blocks, is_of_many=is_of_many)
    prior.randomise(torch.Generator().manual_seed(3))
    kernel, a, b = prior.target_kernel, encode(x[:7], columns), encode(x[5:], columns)
    torch.testing.assert_close(kernel.against(b)(a), kernel(compare(a, b)).detach())


@pytest.mark.parametrize("space", SPACES)
def test_every_parameter_gets_its_true_gradient(space):
    blocks = SPACES[space]
    x = _rows(blocks, 12)
    prior = JointPrior(x.shape[1], 2, is_correlated=True, blocks=blocks)
    prior.randomise(torch.Generator().manual_seed(1))
    y = torch.randn(12, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    seen = Observations(x, torch.arange(12) % 2, y, torch.zeros_like(y))
    free = dict(prior.named_parameters())
    evaluate = _closure(prior, list(free.values()), seen)
    gradients = [gradient.clone() for gradient in evaluate()[1]]
    for parameter, gradient in zip(free.values(), gradients, strict=True):
        entry, step = parameter.data.view(-1), 1e-5
        entry[0] += step
        above = float(evaluate()[0])
        entry[0] -= 2 * step
        below = float(evaluate()[0])
        entry[0] += step
        slope = (above - below) / (2 * step)
        assert float(gradient.view(-1)[0]) == pytest.approx(slope, rel=1e-4, abs=1e-8)


def test_choices_alone_are_botorchs_categorical_kernel():
    blocks, x = SPACES["categorical"], _rows(SPACES["categorical"])
    kernel = _random(blocks, 5)
    theirs = CategoricalKernel(ard_num_dims=2).double()
    theirs.lengthscale = 1 / (2 * kernel.log_rates.detach().exp())  # theirs is a mean over dims
    chosen = torch.stack([x[:, :3].argmax(1), x[:, 3:].argmax(1)], 1).double()
    torch.testing.assert_close(
        _between(kernel, blocks, x, x), theirs(chosen, chosen).to_dense().detach()
    )


def test_motifs_are_letters_and_pairs_at_each_distance():
    (word,) = layout(WORDS, 24).words
    letters, first, second, *_ = word_motifs(_word("ABBA.."), word)
    assert letters.membership()[0].tolist() == [1, 1, 0, 0]
    pairs = {"AB": 1, "BB": 5, "BA": 4}
    assert first.membership()[0].nonzero()[:, 0].tolist() == sorted(pairs.values())
    assert second.membership()[0].nonzero()[:, 0].tolist() == [1, 4]  # A.B and B.A
    assert (letters.count(), first.count()) == (2, 3)


def test_a_motif_is_the_same_wherever_it_stands_and_a_place_is_not():
    kernel = Correlation(layout(WORDS, 24))
    a, moved, other = _word("ABCA.."), _word("..ABCA"), _word("ACBA..")
    columns = layout(WORDS, 24)

    def similarity(b: Tensor) -> float:
        pairs = compare(encode(a, columns), encode(b, columns))
        return float(kernel.similarities(pairs)[0].detach())

    assert similarity(moved) == pytest.approx(1.0)
    assert similarity(other) < 0.8
    assert _between(kernel, WORDS, a, moved) < 1 - 1e-3


def test_empty_words_and_sets_are_equal_to_each_other_and_to_nothing_else():
    for blocks, empty, full in (
        (WORDS, _word("......"), _word("ABCDAB")),
        (SPACES["sets"], torch.zeros(1, 5).double(), torch.ones(1, 5).double()),
    ):
        kernel = Correlation(layout(blocks, empty.shape[1]))
        assert float(_between(kernel, blocks, empty, empty)) == pytest.approx(1.0)
        assert float(_between(kernel, blocks, empty, full)) < 0.2


def test_similarity_of_sets_is_tanimotos():
    blocks = SPACES["sets"]
    kernel, columns = Correlation(layout(blocks, 5)), layout(blocks, 5)
    a, b = torch.tensor([[1.0, 1, 1, 0, 0]]).double(), torch.tensor([[0.0, 1, 1, 1, 0]]).double()
    pairs = compare(encode(a, columns), encode(b, columns))
    assert float(kernel.similarities(pairs)[0]) == pytest.approx(2 / 4, abs=1e-3)


def _rank_correlation(blocks, x: Tensor, y: Tensor, n: int) -> float:
    model = GP()
    model.feature_blocks = blocks
    model.fit(x[:n], torch.zeros(n, dtype=torch.int64), y[:n], 1, 0)
    mean = model.predict(x[n:], 0)[0]
    ranks = torch.stack([mean, y[n:]]).argsort(1).argsort(1).double()
    return float(torch.corrcoef(ranks)[0, 1])


def test_motifs_are_learned_from_few_words():
    generator = torch.Generator().manual_seed(0)
    letters = torch.randint(4, (460, 10), generator=generator)
    x = torch.nn.functional.one_hot(letters, 4).flatten(1).double()
    has = ((letters[:, :-2] == 1) & (letters[:, 2:] == 3)).any(1)  # B.D, anywhere
    y = has.double() + 0.3 * (letters == 0).double().mean(1)
    assert _rank_correlation((("letter", 4),) * 10, x, y, 60) > 0.2 + _rank_correlation(
        None, x, y, 60
    )


def test_places_are_learned_where_they_matter():
    generator = torch.Generator().manual_seed(0)
    letters = torch.randint(4, (460, 10), generator=generator)
    x = torch.nn.functional.one_hot(letters, 4).flatten(1).double()
    table = torch.randn(10, 4, generator=generator, dtype=torch.float64)
    y = table[torch.arange(10), letters].sum(1)
    assert _rank_correlation((("letter", 4),) * 10, x, y, 60) > 0.7


def test_auto_says_what_the_features_are():
    x = _rows(MIXED, 30)
    model = Auto()
    model.feature_blocks = MIXED
    model.fit(x, torch.zeros(30, dtype=torch.int64), x.sum(1), 1, 0)
    because = model.summary()["because"]
    assert "numbers (3), choices (12), words (1), sets (1)" in because
    assert math.isfinite(float(model.predict(x, 0)[1].sum()))


@pytest.mark.parametrize(
    ("blocks", "words"),
    [
        ((("continuous", 2),), "add up to the 3 features, got 2"),
        ((("letters", 3),), "got \\('letters', 3\\)"),
        ((("set", 0), ("continuous", 3)), "got \\('set', 0\\)"),
        ((), "got 0"),
    ],
)
def test_blocks_that_do_not_fit_are_named(blocks, words):
    model, x = GP(), torch.rand(4, 3, dtype=torch.float64)
    model.feature_blocks = blocks
    with pytest.raises(ValueError, match=words):
        model.fit(x, torch.zeros(4, dtype=torch.int64), x[:, 0], 1, 0)


def test_a_letter_not_tried_where_none_has_mattered_keeps_some_doubt():
    kernel = Correlation(layout(WORDS, LETTERS * PLACES))
    with torch.no_grad():
        kernel.log_rates.fill_(-20.0)  # no place seems to matter
        kernel.linear_logit.fill_(-20.0)
        kernel.log_similarity_rates.fill_(-20.0)
    share = float(torch.softmax(torch.tensor([0.0, -0.5]), 0)[1])
    between = _between(kernel, WORDS, _word("ABCDAB"), _word("ABCDAC"))
    assert float(between) == pytest.approx(1 - share / PLACES, rel=1e-4)
