"""Files of a sampler: training goes on from them bit for bit, and wrong ones are refused."""

import json
import pickle
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import Tensor

from sampler import GFlowNet, environment
from sampler.checkpoint import read, write

GRID = environment("hyper_grid", n_dims=2, length=6)
EVERYTHING = {
    "hidden": (16, 16),
    "is_backward_learned": True,
    "exploration": 0.2,
    "temperature": 1.5,
    "schedule": "cosine",
    "schedule_steps": 14,
    "ema": 0.9,
    "patience": 100,
    "replay": {"kind": "prioritized", "capacity": 12, "fraction": 0.25, "min_distance": 0.1},
    "local_search": {"n_rounds": 2, "acceptance": "stochastic"},
}
SPACES = {
    "discrete": ("hyper_grid", {"n_dims": 2, "length": 6}),
    "continuous": (
        "hypercube",
        {"n_dims": 2, "bounds": [(0.0, 1.0), (0.0, 1.0)], "n_increments": 2, "any_order": True},
    ),
}
N_STEPS = 8

GO_ON = """
import json, sys
from pathlib import Path
import torch
from tests.sampler.test_checkpoint import N_STEPS, made, report

torch.set_num_threads(1)
folder, space, options = Path(sys.argv[1]), sys.argv[2], json.loads(sys.argv[3])
net = made(space, options, seed=99)
net.load(folder / "net.pt")
losses = net.train(lambda states: states.sum(dim=1).double(), N_STEPS, 8)
torch.save(report(net, losses), folder / "report.pt")
"""


def log_reward(states: Tensor) -> Tensor:
    return states.sum(dim=1).double()


def made(space: str, options: dict, seed: int = 0) -> GFlowNet:
    kind, shape = SPACES[space]
    return GFlowNet(environment(kind, **shape), seed=seed, **{**options, "device": "cpu"})


def report(net: GFlowNet, losses: list[float]) -> dict:
    """Everything that one could see of a sampler."""
    assert net.replay is None or len(net.replay) > 0
    beta = None if net._beta_range is None else 1.0
    return {
        "losses": torch.tensor(losses, dtype=torch.float64),
        "log_z": torch.tensor(net.log_z),
        **{f"policy {name}": tensor for name, tensor in net.policy.state_dict().items()},
        "samples": net.sample(20),
        "seeded": net.sample(20, seed=5, beta=beta),
        "replayed": net.sample(0) if net.replay is None else net.replay.states,
        "stopping": torch.tensor(list(net.early_stopping.state().values())),
        "steps": torch.tensor(net.n_steps_trained),
    }


@pytest.mark.parametrize(
    ("space", "more"),
    [
        ("discrete", {"loss": "trajectory_balance"}),
        ("discrete", {"loss": "sub_trajectory_balance", "beta_range": [0.5, 2.0]}),
        ("continuous", {"loss": "log_partition_variance"}),
    ],
)
def test_training_goes_on_in_another_process_bit_for_bit(
    space: str, more: dict, tmp_path: Path
) -> None:
    options = {**EVERYTHING, **more}
    once = made(space, options)
    whole = once.train(log_reward, 2 * N_STEPS, 8)
    first = made(space, options)
    before = first.train(log_reward, N_STEPS, 8)
    first.save(tmp_path / "net.pt")
    subprocess.run(
        [sys.executable, "-c", GO_ON, str(tmp_path), space, json.dumps(options)],
        check=True,
        cwd=Path(__file__).parents[2],
        timeout=120,
    )
    seen = torch.load(tmp_path / "report.pt", weights_only=True)
    assert before + seen["losses"].tolist() == whole
    expected = report(once, whole[N_STEPS:])
    assert seen.keys() == expected.keys()
    for name, value in expected.items():
        assert torch.equal(seen[name], value), name


def test_what_is_saved_matters(tmp_path: Path) -> None:
    """Without its random stream or optimiser, the second half would look different."""
    net = made("discrete", EVERYTHING)
    net.train(log_reward, N_STEPS, 8)
    net.save(tmp_path / "net.pt")
    once = net.train(log_reward, N_STEPS, 8)
    content = torch.load(tmp_path / "net.pt", weights_only=True)
    fresh = made("discrete", EVERYTHING, seed=1)
    for name, value in {
        "generator": fresh._generator.get_state(),
        "optimizer": fresh._optimizer.state_dict(),
        "n_steps_trained": 1,
        "replay": {key: part[:1] for key, part in content["replay"].items()},
    }.items():
        torch.save({**content, name: value}, tmp_path / "changed.pt")
        other = made("discrete", EVERYTHING, seed=1)
        other.load(tmp_path / "changed.pt")
        assert other.train(log_reward, N_STEPS, 8) != once, name


def test_a_file_is_written_whole_or_not_at_all(tmp_path: Path) -> None:
    net = made("discrete", {"hidden": (8,)})
    net.save(tmp_path / "net.pt")
    before = (tmp_path / "net.pt").read_bytes()
    with pytest.raises((AttributeError, pickle.PicklingError, TypeError)):
        write(tmp_path / "net.pt", {"shape": lambda: None})
    assert (tmp_path / "net.pt").read_bytes() == before
    assert [path.name for path in tmp_path.iterdir()] == ["net.pt"]


@pytest.mark.parametrize(
    "other",
    [
        {"hidden": (8, 8)},
        {"is_backward_learned": True},
        {"loss": "detailed_balance"},
        {"beta_range": (0.5, 2.0)},
        {"beta_range": (0.5, 2.0), "loss": "detailed_balance"},
        {"ema": 0.9},
        {"replay": {}},
    ],
)
def test_a_file_of_another_network_is_refused(other: dict, tmp_path: Path) -> None:
    made("discrete", {"hidden": (8,)}).save(tmp_path / "net.pt")
    net = made("discrete", {"hidden": (8,), **other})
    weights = [parameter.clone() for parameter in net.policy.parameters()]
    with pytest.raises(ValueError, match="same kind of sampler, space and hidden widths"):
        net.load(tmp_path / "net.pt")
    for before, after in zip(weights, net.policy.parameters(), strict=True):
        assert torch.equal(before, after)


def test_a_file_of_another_range_of_beta_is_refused(tmp_path: Path) -> None:
    made("discrete", {"beta_range": (0.5, 2.0)}).save(tmp_path / "net.pt")
    with pytest.raises(ValueError, match="made for"):
        made("discrete", {"beta_range": (0.5, 3.0)}).load(tmp_path / "net.pt")


@pytest.mark.parametrize("content", [{"format": 1}, {"weights": 3}, [1, 2]])
def test_a_file_of_another_version_is_refused(content: object, tmp_path: Path) -> None:
    torch.save(content, tmp_path / "net.pt")
    with pytest.raises(ValueError, match=r"net\.pt: written by another version"):
        made("discrete", {"hidden": (8,)}).load(tmp_path / "net.pt")


class Harmful:
    """Unpickled, it would create a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple:
        return (Path.touch, (self.path,))


def test_a_file_runs_nothing_of_what_it_says(tmp_path: Path) -> None:
    torch.save({"format": 2, "shape": Harmful(tmp_path / "touched")}, tmp_path / "net.pt")
    with pytest.raises(ValueError, match="holds other things than tensors"):
        made("discrete", {"hidden": (8,)}).load(tmp_path / "net.pt")
    assert not (tmp_path / "touched").exists()


def test_a_damaged_file_is_refused(tmp_path: Path) -> None:
    net = made("discrete", {"hidden": (8,)})
    net.save(tmp_path / "net.pt")
    whole = (tmp_path / "net.pt").read_bytes()
    for content in (whole[: len(whole) // 2], b"", b"no such thing"):
        (tmp_path / "net.pt").write_bytes(content)
        with pytest.raises(ValueError, match=r"net\.pt: expected a file that `save` wrote"):
            net.load(tmp_path / "net.pt")


def test_writing_and_reading(tmp_path: Path) -> None:
    write(tmp_path / "a.pt", {"shape": {"n": 1}, "x": torch.arange(3)})
    content = read(tmp_path / "a.pt", {"n": 1}, torch.device("cpu"))
    assert content["x"].tolist() == [0, 1, 2]
    with pytest.raises(FileNotFoundError):
        read(tmp_path / "b.pt", {}, torch.device("cpu"))
