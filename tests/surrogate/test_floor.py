"""The floor: what the fatal parts are, and what a candidate is worth where it has none."""

import math

import pytest
import torch
from torch import Tensor

from surrogate.auto import Auto
from surrogate.blocks import layout
from surrogate.floor import Chance, floor_of
from surrogate.floored import Floored
from surrogate.gp import GP
from surrogate.improvement import LogExpectedImprovement
from surrogate.log_normal import log_expected_improvement
from surrogate.mixture import moments
from surrogate.pending import WithPending

LETTERS, PLACES = 4, 8
WORDS = (("letter", LETTERS),) * PLACES
COLUMNS = layout(WORDS, LETTERS * PLACES)
FATAL = (1, 3)  # a 1 right before a 3


def _words(n: int, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(LETTERS, (n, PLACES), generator=generator)


def _features(words: Tensor) -> Tensor:
    return torch.nn.functional.one_hot(words, LETTERS).flatten(1).double()


def _is_fatal(words: Tensor) -> Tensor:
    return ((words[:, :-1] == FATAL[0]) & (words[:, 1:] == FATAL[1])).any(1)


def _data(n: int, seed: int = 0, sign: float = 1.0) -> tuple[Tensor, Tensor, Tensor]:
    """Features, fidelities and values: 1 + the share of letters that are 0, else nothing."""
    words = _words(n, seed)
    values = torch.where(_is_fatal(words), 0.0, 1 + (words == 0).double().mean(1))
    return _features(words), torch.zeros(n, dtype=torch.long), sign * values


def _fitted(n: int = 120, sign: float = 1.0) -> Auto:
    model = Auto(n_starts=1, max_iterations=10)
    model.feature_blocks, model.sign = WORDS, sign
    model.fit(*_data(n, sign=sign), 1, 0)
    return model


def test_what_was_observed_is_known_to_be_above_the_floor_or_at_it() -> None:
    features, fidelities, values = _data(120)
    model = Auto(n_starts=1, max_iterations=10)
    model.feature_blocks, model.sign = WORDS, 1.0
    model.fit(features, fidelities, values, 1, 0)
    mean, _ = model.predict(features, 0)
    is_floor = values == 0
    assert float((mean[is_floor]).abs().max()) < 1e-6
    assert float((mean - values)[~is_floor].abs().max()) < 0.2
    covariance = model.covariance(features, fidelities, features, fidelities)
    assert float(covariance[is_floor].abs().max()) < 1e-6
    assert float(covariance.diagonal()[~is_floor].min()) > 0


@pytest.mark.parametrize(
    ("values", "sign", "floor"),
    [
        ([0.0] * 8 + [1.0, 2.0], 1.0, 0.0),
        ([0.0] * 8 + [-1.0, -2.0], -1.0, 0.0),
        ([0.0] * 8 + [-1.0, -2.0], 1.0, None),  # what they share is the best there is
        ([0.0] * 7 + [1.0, 2.0], 1.0, None),
        ([0.0] * 8 + [1.0] * 160, 1.0, None),  # less than one in twenty
        ([0.0] * 8 + [1.0], 1.0, None),  # one is too few to learn from
    ],
)
def test_a_floor_is_the_worst_value_where_enough_share_it(values, sign, floor):
    assert floor_of(torch.tensor(values, dtype=torch.float64), sign) == floor


def test_the_fatal_pair_is_found_wherever_it_stands():
    words = _words(200)
    chance = Chance(COLUMNS, _features(words), _is_fatal(words))
    new = _words(300, seed=1)
    told = chance.log_chance(_features(new)).exp()
    assert bool(((told >= 0) & (told <= 1)).all())
    assert float(told[_is_fatal(new)].max()) < 0.2
    assert float(told[~_is_fatal(new)].min()) > 0.8


def test_a_part_of_good_candidates_is_cleared_and_one_never_seen_stays_in_doubt():
    seen = torch.zeros(10, PLACES, dtype=torch.long)
    never, often = seen.clone()[:1], seen[:1]
    never[0, 3] = 2
    chance = Chance(COLUMNS, _features(seen), torch.zeros(10, dtype=torch.bool))
    assert float(chance.log_chance(_features(often))) > math.log(0.95)
    assert float(chance.log_chance(_features(never))) < float(chance.log_chance(_features(often)))


def _above(model, x):
    """Mean and sd above the floor, and the log chance to be there."""
    mean, sd, log_weight = model.mixture(x, 0)
    return *moments(mean, sd, log_weight), log_weight.logsumexp(0)


@pytest.mark.parametrize("sign", [1.0, -1.0])
def test_auto_learns_a_floor_apart_and_predicts_the_mixture(sign):
    model, new = _fitted(sign=sign), _words(60, seed=5)
    x = _features(new)
    mean, sd, log_chance = _above(model, x)
    assert model.summary()["floor"] == 0.0
    assert model.summary()["n_observations"] == [120 - model.summary()["n_floor"]]
    chance = log_chance.exp()
    mixed, mixed_sd = model.predict(x, 0)
    torch.testing.assert_close(mixed, chance * mean)
    second = chance * (sd.square() + mean.square())
    torch.testing.assert_close(mixed_sd.square() + mixed.square(), second)
    truth = sign * (1 + (new == 0).double().mean(1))
    assert float((mean - truth).abs().max()) < 0.15  # no cliff in what is above


@pytest.mark.parametrize("blocks", [None, WORDS])
def test_no_floor_where_the_better_side_or_the_kind_of_part_is_unknown(blocks):
    model = Auto(max_iterations=3)
    model.feature_blocks, model.sign = blocks, None if blocks else 1.0
    model.fit(*_data(60), 1, 0)
    assert "floor" not in model.summary()
    mean, sd, log_weight = model.mixture(_data(5, seed=3)[0], 0)
    torch.testing.assert_close((mean[0], sd[0]), model.predict(_data(5, seed=3)[0], 0))
    assert torch.equal(log_weight, torch.zeros(1, 5, dtype=torch.float64))


def test_the_gain_is_that_above_the_floor_times_its_chance():
    model, x = _fitted(), _features(_words(40, seed=2))
    acquisition = LogExpectedImprovement()
    acquisition.prepare(model, sign=1.0, best=1.5, reference_features=x, seed=0)
    mean, sd, log_weight = model.mixture(x, 0)
    parts = sd.log() + log_expected_improvement((mean - 1.5) / sd) + log_weight
    expected = parts.logsumexp(0)
    torch.testing.assert_close(acquisition.target_log_gain(x), expected)


def test_pending_queries_leave_the_chance_and_take_away_doubt():
    model, x = _fitted(), _features(_words(6, seed=4))
    waiting = WithPending(model, x[:2], torch.zeros(2, dtype=torch.long))
    mean, sd, log_chance = model.mixture(x, 0)
    their_mean, their_sd, their_chance = waiting.mixture(x, 0)
    torch.testing.assert_close((their_mean, their_chance), (mean, log_chance))
    assert bool((their_sd <= sd).all())
    assert bool((their_sd[:, :2] < 0.9 * sd[:, :2]).all())


def test_several_fidelities_are_refused():
    model = GP()
    model.feature_blocks = WORDS
    x, of, y = _data(30)
    with pytest.raises(ValueError, match="one fidelity above a floor, got 2"):
        Floored(model, 0.0).fit(x, of, y, 2, 0)
