"""Every loss is zero at the exact solution and nowhere near it, and is the formula it cites."""

import itertools
import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from sampler import LOSSES
from sampler.exact import terminal_distribution
from sampler.losses import Balance, Loss
from sampler.registry import resolve
from sampler.rollout import Trajectories
from tests.sampler import diamond
from tests.sampler.diamond import EDGES, FLOW, PATHS, REWARD, Diamond, edge_flow, solved

ACTION = {(state, child): action for (state, action), child in EDGES.items()}
EVERY_LOSS = pytest.mark.parametrize("loss", sorted(LOSSES))
CONTINUOUS_LOSSES = sorted(set(LOSSES) - {"flow_matching"})


def loss_named(name: str) -> Loss:
    return resolve(name, LOSSES, "loss")


def all_trajectories() -> Trajectories:
    """Every path of the diamond, transitions step by step as `roll_out` gives them."""
    steps = sorted(
        (step, row, parent, child)
        for row, path in enumerate(PATHS)
        for step, (parent, child) in enumerate(itertools.pairwise(path))
    )
    space = Diamond()
    states = torch.tensor([[parent] for _, _, parent, _ in steps])
    return Trajectories(
        terminal_states=torch.tensor([[path[-1]] for path in PATHS]),
        rows=torch.tensor([row for _, row, _, _ in steps]),
        states=states,
        actions=torch.tensor([ACTION[parent, child] for _, _, parent, child in steps]),
        amounts=None,
        children=torch.tensor([[child] for _, _, _, child in steps]),
        masks=space.forward_mask(states),
    )


def exact_balance(kind: str, decay: float = 0.9) -> Balance:
    """Both sides of the flow equations on every path, solved by hand, in float64."""
    paths = all_trajectories()
    edges = list(zip(paths.states[:, 0].tolist(), paths.children[:, 0].tolist(), strict=True))

    def logs(values: list[float]) -> Tensor:
        return torch.tensor(values, dtype=torch.float64).log()

    children = logs([FLOW[kind][child] for _, child in edges])
    return Balance(
        log_forward=logs([edge_flow(kind, *edge) / FLOW[kind][edge[0]] for edge in edges]),
        log_backward=logs([edge_flow(kind, *edge) / FLOW[kind][edge[1]] for edge in edges]),
        rows=paths.rows,
        log_reward=logs([REWARD[path[-1]] for path in PATHS]),
        log_z=torch.tensor(6.0, dtype=torch.float64).log(),
        log_flow=logs([FLOW[kind][parent] for parent, _ in edges]),
        following=paths.following,
        ordered=paths.ordered,
        log_inflow=children,
        log_outflow=children,
        decay=decay,
    )


def test_the_flow_of_the_diamond_is_a_flow() -> None:
    for kind in ("uniform", "learned"):
        for state in range(diamond.N_STATES):
            out = [edge_flow(kind, s, child) for (s, _), child in EDGES.items() if s == state]
            into = [edge_flow(kind, s, child) for (s, _), child in EDGES.items() if child == state]
            assert sum(out or [REWARD.get(state, 0.0)]) == pytest.approx(FLOW[kind][state])
            assert sum(into or [6.0]) == pytest.approx(FLOW[kind][state])


@EVERY_LOSS
@pytest.mark.parametrize("kind", ["uniform", "learned"])
@pytest.mark.parametrize("decay", [0.3, 1.0, 2.0])
def test_zero_at_the_solution(loss: str, kind: str, decay: float) -> None:
    assert float(loss_named(loss)(exact_balance(kind, decay))) < 1e-24


@pytest.mark.parametrize(
    ("loss", "part"),
    [
        *((loss, "log_reward") for loss in CONTINUOUS_LOSSES),
        *((loss, "log_forward") for loss in CONTINUOUS_LOSSES),
        *((loss, "log_backward") for loss in CONTINUOUS_LOSSES),
        ("trajectory_balance", "log_z"),
        ("detailed_balance", "log_flow"),
        ("sub_trajectory_balance", "log_flow"),
        ("flow_matching", "log_inflow"),
        ("flow_matching", "log_outflow"),
    ],
)
def test_not_zero_off_the_solution(loss: str, part: str) -> None:
    """Whichever number of a part is wrong, the loss sees it."""
    exact = exact_balance("learned")
    for i in range(getattr(exact, part).numel()):
        wrong = getattr(exact, part).clone()
        wrong.view(-1)[i] += 0.1
        assert float(loss_named(loss)(Balance(**{**vars(exact), part: wrong}))) > 1e-5, i


@EVERY_LOSS
@pytest.mark.parametrize("kind", ["uniform", "learned"])
def test_the_engine_finds_the_solution_balanced(loss: str, kind: str) -> None:
    if (loss, kind) == ("flow_matching", "learned"):
        pytest.skip("flow matching has no backward policy: its solution is not unique")
    net = solved(loss, kind, exploration=0.5, learning_rate=1e-9, log_z_learning_rate=1e-9)
    assert max(net.train(diamond.log_reward, 5, 16)) < 1e-10
    assert net.log_z == pytest.approx(math.log(6.0), abs=1e-5)
    states, probabilities = terminal_distribution(net)
    assert states[:, 0].tolist() == [4, 5, 6]
    assert probabilities.tolist() == pytest.approx([2 / 6, 3 / 6, 1 / 6], abs=1e-5)


@EVERY_LOSS
def test_the_engine_sees_every_wrong_number(loss: str) -> None:
    """Moving any one entry of the solved table that matters unbalances the batch."""
    kind = "uniform" if loss == "flow_matching" else "learned"
    n_columns = solved(loss, kind).policy.n_outputs
    for state in range(4):
        for column in range(n_columns):
            if column < diamond.N_ACTIONS and (state, column) not in EDGES:
                continue
            is_backward = diamond.N_ACTIONS <= column < 2 * diamond.N_ACTIONS
            if is_backward and kind == "learned" and (state != 3 or column == 5):
                continue  # only state 3 has a choice here, of actions 0 and 1
            net = solved(loss, kind, exploration=0.5)
            with torch.no_grad():
                net.policy.layers[-1].weight[column, state] += 0.3
            assert net.train(diamond.log_reward, 1, 64)[0] > 1e-4, (state, column)


def ragged(lengths: list[int], seed: int, decay: float) -> Balance:
    """Random numbers for trajectories of these lengths, in the order of `roll_out`."""
    generator = torch.Generator().manual_seed(seed)
    steps = sorted((step, row) for row, n in enumerate(lengths) for step in range(n))
    t, n = len(steps), len(lengths)
    paths = Trajectories(
        terminal_states=torch.zeros(n, 1),
        rows=torch.tensor([row for _, row in steps]),
        states=torch.zeros(t, 1),
        actions=torch.zeros(t),
        amounts=None,
        children=torch.zeros(t, 1),
        masks=torch.ones(t, 1, dtype=torch.bool),
    )

    def drawn(m: int) -> Tensor:
        return torch.randn(m, generator=generator, dtype=torch.float64).requires_grad_()

    return Balance(
        log_forward=drawn(t),
        log_backward=drawn(t),
        rows=paths.rows,
        log_reward=drawn(n).detach(),
        log_z=drawn(1)[0],
        log_flow=drawn(t),
        following=paths.following,
        ordered=paths.ordered,
        decay=decay,
    )


def naive_sub_trajectory_balance(balance: Balance) -> Tensor:
    """Equation 6 of Madan et al. 2023 as it stands: loops over trajectories and pairs i < j."""
    assert balance.log_flow is not None
    losses = []
    for row in range(len(balance.log_reward)):
        steps = (balance.rows == row).nonzero()[:, 0].tolist()
        flows = [balance.log_flow[k] for k in steps] + [balance.log_reward[row]]
        top, bottom = torch.zeros((), dtype=torch.float64), 0.0
        for i in range(len(flows)):
            for j in range(i + 1, len(flows)):
                inner = steps[i:j]
                forward = balance.log_forward[inner].sum()
                backward = balance.log_backward[inner].sum()
                weight = balance.decay ** (j - i)
                top = top + weight * (flows[i] + forward - flows[j] - backward).square()
                bottom += weight
        losses.append(top / bottom)
    return torch.stack(losses).mean()


def gradients(value: Tensor, balance: Balance) -> list[Tensor]:
    return list(
        torch.autograd.grad(
            value, [balance.log_forward, balance.log_backward, balance.log_flow], retain_graph=True
        )
    )


@settings(max_examples=40)
@given(
    st.lists(st.integers(1, 6), min_size=1, max_size=5),
    st.integers(0, 1000),
    st.sampled_from([0.1, 0.9, 1.0, 1.5]),
)
def test_sub_trajectory_balance_against_loops(lengths: list[int], seed: int, decay: float) -> None:
    balance = ragged(lengths, seed, decay)
    fast = loss_named("sub_trajectory_balance")(balance)
    slow = naive_sub_trajectory_balance(balance)
    assert float(fast.detach()) == pytest.approx(float(slow.detach()), rel=1e-9)
    for left, right in zip(gradients(fast, balance), gradients(slow, balance), strict=True):
        assert torch.allclose(left, right, atol=1e-10)


@settings(max_examples=20)
@given(st.lists(st.integers(1, 6), min_size=1, max_size=5), st.integers(0, 1000))
def test_detailed_balance_against_a_loop(lengths: list[int], seed: int) -> None:
    balance = ragged(lengths, seed, 0.9)
    assert balance.log_flow is not None
    terms = []
    for row in range(len(lengths)):
        steps = (balance.rows == row).nonzero()[:, 0].tolist()
        flows = [balance.log_flow[k] for k in steps] + [balance.log_reward[row]]
        for i, k in enumerate(steps):
            gap = flows[i] + balance.log_forward[k] - flows[i + 1] - balance.log_backward[k]
            terms.append(gap.square())
    expected = float(torch.stack(terms).mean().detach())
    assert float(loss_named("detailed_balance")(balance).detach()) == pytest.approx(expected)


def test_detailed_balance_by_hand() -> None:
    balance = Balance(
        log_forward=torch.tensor([-1.0, -0.5]),
        log_backward=torch.tensor([-0.25, 0.0]),
        rows=torch.tensor([0, 0]),
        log_reward=torch.tensor([1.0], dtype=torch.float64),
        log_z=torch.tensor(0.0),
        log_flow=torch.tensor([2.0, 0.5]),
        following=torch.tensor([1, 2]),
    )
    # Step 0: 2 - 1 - 0.5 + 0.25 = 0.75; step 1: 0.5 - 0.5 - 1 - 0 = -1.
    assert float(loss_named("detailed_balance")(balance)) == pytest.approx((0.5625 + 1) / 2)


def test_log_partition_variance_by_hand() -> None:
    balance = Balance(
        log_forward=torch.tensor([-1.0, -2.0, -1.0, -3.0]),
        log_backward=torch.zeros(4),
        rows=torch.arange(4),
        log_reward=torch.tensor([0.0, 1.0, 4.0, 4.0], dtype=torch.float64),
        log_z=torch.tensor(99.0),
    )
    # The estimates of log Z are 1, 3, 5 and 7.
    loss = loss_named("log_partition_variance")
    assert float(loss(balance)) == pytest.approx((9 + 1 + 1 + 9) / 4)
    pairs = Balance(**{**vars(balance), "groups": torch.tensor([0, 0, 1, 1])})
    assert float(loss(pairs)) == pytest.approx(1)
    others = Balance(**{**vars(balance), "groups": torch.tensor([1, 0, 0, 1])})
    assert float(loss(others)) == pytest.approx((9 + 1 + 1 + 9) / 4)


def test_flow_matching_by_hand() -> None:
    balance = Balance(
        log_forward=torch.zeros(2),
        log_backward=torch.zeros(2),
        rows=torch.tensor([0, 0]),
        log_reward=torch.zeros(1),
        log_z=torch.tensor(0.0),
        log_inflow=torch.tensor([1.0, 3.0]),
        log_outflow=torch.tensor([2.0, 1.0]),
    )
    assert float(loss_named("flow_matching")(balance)) == pytest.approx((1 + 4) / 2)
