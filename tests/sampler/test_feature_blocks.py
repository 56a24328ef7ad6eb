import pytest
import torch

from sampler import GFlowNet, environment
from sampler.environments.multi_fidelity import MultiFidelity

SPACES = {
    "sequence": {"alphabet": "dna", "min_length": 2, "max_length": 5},
    "scrabble": {"max_length": 4},
    "subset": {"n_items": 6, "size": 2},
    "tetris": {"width": 4, "height": 5, "pieces": "IO"},
}


def _features(space, n: int = 50) -> torch.Tensor:
    return space.features(GFlowNet(space, seed=0).sample(n))


@pytest.mark.parametrize("kind", sorted(SPACES))
def test_blocks_say_what_the_columns_of_the_features_are(kind):
    space = environment(kind, **SPACES[kind])
    features, start = _features(space), 0
    for name, width in space.feature_blocks:
        columns = features[:, start : start + width]
        if name != "continuous":
            assert ((columns == 0) | (columns == 1)).all()
        if name == "letter":
            assert (columns.sum(1) <= 1).all()
        if name == "categorical":
            assert (columns.sum(1) == 1).all()
        start += width
    assert start == space.n_features == features.shape[1]


def test_a_space_of_numbers_has_none_and_others_pass_on_what_they_are_made_of():
    assert environment("hyper_grid", n_dims=2, length=4).feature_blocks is None
    word = {"kind": "sequence", "alphabet": "01", "min_length": 2, "max_length": 2}
    grid = {"kind": "hyper_grid", "n_dims": 2, "length": 4}
    both = environment("stack", parts={"grid": grid, "word": word})
    assert both.feature_blocks == (("continuous", 2), ("letter", 2), ("letter", 2))
    both_ways = MultiFidelity(environment(**word), ["low", "high"], "any")
    assert both_ways.feature_blocks == (("letter", 2), ("letter", 2), ("continuous", 1))
    restricted = environment("subset", n_items=6, size=2).restricted({"include": [3]})
    assert restricted.feature_blocks == (("set", 6),)
