import pytest
import torch
from torch import Tensor

from surrogate.auto import Auto
from surrogate.deep_kernel import DeepKernel
from surrogate.gp import GP, MultiFidelityGP


def _data(n: int, m: int) -> tuple[Tensor, Tensor, Tensor]:
    x = torch.rand(n, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    return x, torch.arange(n) % m, torch.sin(3 * x).sum(1)


def _fitted(n: int, m: int, **options: float) -> Auto:
    model = Auto(**options)
    model.fit(*_data(n, m), m, 0)
    return model


@pytest.mark.parametrize(
    ("n", "m", "kind", "cls"),
    [
        (20, 1, "gp", GP),
        (20, 2, "multi_fidelity_gp", MultiFidelityGP),
        (21, 1, "deep_kernel", DeepKernel),
        (21, 2, "deep_kernel", DeepKernel),
    ],
)
def test_the_number_of_observations_and_fidelities_choose(n, m, kind, cls):
    model = _fitted(n, m, max_exact=20)
    summary = model.summary()
    assert summary["chosen"] == kind
    assert str(n) in summary["because"]
    assert "20" in summary["because"]
    plain = cls()
    plain.fit(*_data(n, m), m, 0)
    x = _data(7, m)[0]
    assert torch.equal(model.predict(x, m - 1)[0], plain.predict(x, m - 1)[0])
    assert summary["model"] == plain.summary()["model"]


def test_values_that_are_not_finite_do_not_count():
    x, of, y = _data(25, 2)
    y[:5] = torch.nan
    model = Auto(max_exact=20)
    model.fit(x, of, y, 2, 0)
    assert model.summary()["chosen"] == "multi_fidelity_gp"


def test_growing_data_change_the_choice():
    model = _fitted(20, 2, max_exact=20)
    model.fit(*_data(40, 2), 2, 0)
    assert model.summary()["chosen"] == "deep_kernel"


def test_misuse_is_named():
    with pytest.raises(RuntimeError, match="fit"):
        Auto().predict(_data(2, 1)[0], 0)
    with pytest.raises(ValueError, match="max_exact of 0 or more, got -1"):
        Auto(max_exact=-1)
    with pytest.raises(ValueError, match="outlier_mads"):
        Auto(outlier_mads=0.0)
