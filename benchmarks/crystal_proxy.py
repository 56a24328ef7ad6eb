"""A proxy of the formation energy: a small ensemble of networks on the space's own features.

It learns CHGNet's single points. Energies are cut at `E_MAX`, and a crystal without one (no room
for its atoms, or outside CHGNet's window) counts as `E_MAX`: what cannot be made is not wanted.
Named axes: n rows, d features, m members.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from sampler.environments.crystal import Crystal

E_MAX = 3.0
"""eV/atom."""
_WIDTH, _N_MEMBERS, _N_EPOCHS, _BATCH = 128, 4, 150, 64


class EnergyProxy(nn.Module):
    """Mean of `_N_MEMBERS` networks plus their standard deviation, eV/atom, at most `E_MAX`.

    Pessimistic, for a sampler goes where networks err on the low side: on the mean alone it found
    crystals of two elements at -5.5 eV/atom, lower than anything real.
    """

    def __init__(self, space: Crystal, seed: int = 0) -> None:
        super().__init__()
        self._space = space
        self.mean: Tensor
        self.scale: Tensor
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            self.members = nn.ModuleList(_network(space.n_features) for _ in range(_N_MEMBERS))
        self.register_buffer("mean", torch.zeros(space.n_features))
        self.register_buffer("scale", torch.ones(space.n_features))

    def inputs(self, states: Tensor) -> Tensor:
        """Standardised features, float32 `(n, d)`."""
        return (self._space.features(states).float() - self.mean) / self.scale

    def of_members(self, inputs: Tensor) -> Tensor:
        """What each member says, `(m, n)`, uncut."""
        return torch.stack([member(inputs)[:, 0] for member in self.members])

    @torch.no_grad()
    def forward(self, states: Tensor) -> Tensor:
        """Formation energy in eV/atom of terminal states, float64 `(n,)`."""
        told = self.of_members(self.inputs(states)).double()
        return (told.mean(dim=0) + told.std(dim=0)).clamp(max=E_MAX)

    def fit(self, states: Tensor, energies: Tensor, weights: Tensor, seed: int = 0) -> None:
        """Learn `energies` `(n,)`, infinite where there is none; `weights` `(n,)` of the rows."""
        features = self._space.features(states).float()
        self.mean.copy_(features.mean(dim=0))
        self.scale.copy_(features.std(dim=0).clamp_min(1e-3))
        inputs, targets = self.inputs(states), cut(energies).float()
        generator = torch.Generator().manual_seed(seed)
        n_steps = _N_EPOCHS * len(states) // _BATCH
        for member in self.members:
            _fit_member(member, inputs, targets, weights.float(), n_steps, generator)


def cut(energies: Tensor) -> Tensor:
    """Energies as the proxy learns them: at most `E_MAX`, which is also that of a failure."""
    return energies.clamp(max=E_MAX)


def errors(proxy: EnergyProxy, states: Tensor, energies: Tensor) -> dict[str, float]:
    """Of held-out crystals: mean absolute error (eV/atom), Spearman, and both for E < 0 alone."""
    from scipy import stats

    told, true = proxy(states), cut(energies)
    low = true < 0
    answer = {
        "n": len(true),
        "mae": float((told - true).abs().mean()),
        "spearman": float(stats.spearmanr(told, true)[0]),
        "n_below_0": int(low.sum()),
        "mae_below_0": float((told - true)[low].abs().mean()),
    }
    if answer["n_below_0"] > 2:
        answer["spearman_below_0"] = float(stats.spearmanr(told[low], true[low])[0])
    return answer


def _network(n_inputs: int) -> nn.Module:
    return nn.Sequential(
        nn.Linear(n_inputs, _WIDTH), nn.SiLU(),
        nn.Linear(_WIDTH, _WIDTH), nn.SiLU(),
        nn.Linear(_WIDTH, 1),
    )  # fmt: skip


def _fit_member(
    member: nn.Module,
    inputs: Tensor,
    targets: Tensor,
    weights: Tensor,
    n_steps: int,
    generator: torch.Generator,
) -> None:
    """Weighted Huber loss, AdamW, one-cycle schedule; rows drawn anew each step."""
    optimizer = torch.optim.AdamW(member.parameters(), lr=2e-3, weight_decay=1e-2)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 2e-3, total_steps=n_steps)
    for _ in range(n_steps):
        rows = torch.multinomial(weights, _BATCH, replacement=True, generator=generator)
        optimizer.zero_grad()
        loss = nn.functional.huber_loss(member(inputs[rows])[:, 0], targets[rows], delta=0.5)
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        schedule.step()
