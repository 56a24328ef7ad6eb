"""A directed acyclic graph of seven states whose flow is solved by hand.

```
        ┌── 1 ──┬── 4 (R = 2)
    0 ──┤       └── 3 ──┬── 6 (R = 1)
        └── 2 ──┬───┘   └── 5 (R = 3)
                └────────── 5
```

States 3 and 5 have two parents each. With P_B(2 | 5) = 1/3 and P_B(1 | 3) = 0.4 the flows are
F(5) = 3: 1 from 2, 2 from 3; F(3) = 1 + 2 = 3: 1.2 from 1, 1.8 from 2; F(1) = 2 + 1.2; F(2) = 1 +
1.8; F(0) = 6. With the uniform P_B: F(3) = 1 + 1.5, F(1) = 2 + 1.25, F(2) = 1.5 + 1.25.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from sampler import GFlowNet
from sampler.environment import Candidate, Environment

N_STATES = 7
N_ACTIONS = 3
EDGES = {(0, 0): 1, (0, 1): 2, (1, 1): 3, (1, 2): 4, (2, 0): 3, (2, 2): 5, (3, 0): 5, (3, 2): 6}
"""From (state, action) to its child."""
REWARD = {4: 2.0, 5: 3.0, 6: 1.0}
PATHS = [[0, 1, 4], [0, 1, 3, 6], [0, 1, 3, 5], [0, 2, 5], [0, 2, 3, 6], [0, 2, 3, 5]]
BACKWARD = {
    "uniform": {(2, 5): 1 / 2, (1, 3): 1 / 2, (3, 5): 1 / 2, (2, 3): 1 / 2},
    "learned": {(2, 5): 1 / 3, (1, 3): 0.4, (3, 5): 2 / 3, (2, 3): 0.6},
}
"""P_B of each (parent, child) where the child has two parents."""
FLOW = {
    "uniform": {0: 6.0, 1: 3.25, 2: 2.75, 3: 2.5, **REWARD},
    "learned": {0: 6.0, 1: 3.2, 2: 2.8, 3: 3.0, **REWARD},
}


def edge_flow(kind: str, parent: int, child: int) -> float:
    """F(parent → child) of the solution with the backward policy `kind`."""
    return FLOW[kind][child] * BACKWARD[kind].get((parent, child), 1.0)


class Diamond(Environment):
    """State `(1)`: the number of the state."""

    n_actions = N_ACTIONS
    n_policy_inputs = N_STATES
    n_features = N_STATES
    max_steps = 3

    def __init__(self) -> None:
        self._child = torch.full((N_STATES, N_ACTIONS), -1)
        self._parent = torch.full((N_STATES, N_ACTIONS), -1)
        for (state, action), child in EDGES.items():
            self._child[state, action] = child
            self._parent[child, action] = state

    def initial_states(self, n: int) -> Tensor:
        return torch.zeros(n, 1, dtype=torch.int64)

    def forward_mask(self, states: Tensor) -> Tensor:
        return self._child[states[:, 0]] >= 0

    def step(self, states: Tensor, actions: Tensor, amounts: Tensor | None = None) -> Tensor:
        return self._child[states[:, 0], actions][:, None]

    def is_terminal(self, states: Tensor) -> Tensor:
        return states[:, 0] >= 4

    def backward_mask(self, states: Tensor) -> Tensor:
        return self._parent[states[:, 0]] >= 0

    def step_back(self, states: Tensor, actions: Tensor, amounts: Tensor | None = None) -> Tensor:
        return self._parent[states[:, 0], actions][:, None]

    def policy_inputs(self, states: Tensor) -> Tensor:
        return torch.eye(N_STATES)[states[:, 0]]

    def features(self, states: Tensor) -> Tensor:
        return self.policy_inputs(states).double()

    def keys(self, states: Tensor) -> list[str]:
        return [str(i) for i in states[:, 0].tolist()]

    def from_keys(self, keys: Sequence[str]) -> Tensor:
        return torch.tensor([[int(key)] for key in keys])

    def decode(self, states: Tensor) -> list[Candidate]:
        return self.keys(states)

    def encode(self, candidates: Sequence[Candidate]) -> Tensor:
        return self.from_keys(candidates)


def log_reward(states: Tensor) -> Tensor:
    """Log R of terminal states."""
    values = torch.tensor([REWARD.get(i, 0.0) for i in range(N_STATES)], dtype=torch.float64)
    return values[states[:, 0]].log()


def solved(loss: str, kind: str, **options) -> GFlowNet:
    """A sampler whose network is a table of the solution: one-hot inputs, layer one the identity.

    Its log Z is 0 and the table carries the rest where the loss leaves that open.
    """
    net = GFlowNet(
        Diamond(), loss, hidden=(N_STATES,), is_backward_learned=kind == "learned", **options
    )
    table = torch.zeros(N_STATES, net.policy.n_outputs)
    for (state, action), child in EDGES.items():
        flow = edge_flow(kind, state, child)
        of_state = 6.0 if loss == "flow_matching" else FLOW[kind][state]
        table[state, action] = torch.tensor(flow / of_state).log()
        if net.policy.has_backward:
            share = flow / FLOW[kind][child]
            net.policy.backward_logits(table)[child, action] = torch.tensor(share).log()
    if net.policy.has_flow:
        column = net.policy.log_flow(table)
        column[:] = torch.tensor([FLOW[kind][i] / 6.0 for i in range(N_STATES)]).log()
    first, last = net.policy.layers
    with torch.no_grad():
        first.weight.copy_(torch.eye(N_STATES))
        first.bias.zero_()
        last.weight.copy_(table.t())
        last.bias.zero_()
        net.policy.log_z.fill_(torch.tensor(6.0).log())
    return net
