"""The transitions of a batch of trajectories, flat; in the order of their steps or against it.

Named axes: n trajectories, t transitions of all of them, w state columns, a actions.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor


@dataclass(frozen=True)
class Trajectories:
    """The transitions of n complete trajectories; `rows` says whose each one is.

    Those of one trajectory stand in the order of its steps, or all in the reverse order.
    """

    terminal_states: Tensor  # (n, w)
    rows: Tensor  # (t,)
    states: Tensor  # (t, w): parents
    actions: Tensor  # (t,)
    amounts: Tensor | None  # (t,)
    children: Tensor  # (t, w)
    masks: Tensor  # (t, a): forward masks of the parents
    asked: Tensor | None = None  # (t,): which of the network's answers each transition used
    is_reversed: bool = False

    def __len__(self) -> int:
        return len(self.terminal_states)

    @cached_property
    def ordered(self) -> Tensor:
        """Indices of the transitions by trajectory, first step first, `(t,)`."""
        if not self.is_reversed:
            return self.rows.argsort(stable=True)
        return self.rows.flip(0).argsort(stable=True).neg() + (len(self.rows) - 1)

    @cached_property
    def following(self) -> Tensor:
        """The transition that leaves each child, or t + row for a terminal one, `(t,)`."""
        order, t = self.ordered, len(self.rows)
        rows = self.rows[order]
        after = torch.empty_like(order)
        after[order] = torch.cat([order[1:], order[:1]])
        is_last = torch.ones_like(rows, dtype=torch.bool)
        is_last[:-1] = rows[1:] != rows[:-1]
        after[order[is_last]] = t + rows[is_last]
        return after


def joined(parts: list[Trajectories]) -> Trajectories:
    """All trajectories of `parts` as one set, in their order; all brought to forward order.

    Answers of the network are those of the first part, then one a transition.
    """
    parts = [forward_order(part) for part in parts]
    if len(parts) == 1:
        return parts[0]
    rows, asked, n_rows, n_asked = [], [], 0, 0
    for part in parts:
        rows.append(part.rows + n_rows)
        own = torch.arange(len(part.rows), device=part.rows.device)
        asked.append((own if part.asked is None else part.asked) + n_asked)
        n_rows += len(part)
        n_asked = int(asked[-1].max()) + 1 if len(own) > 0 else n_asked
    amounts = [part.amounts for part in parts if part.amounts is not None]
    return Trajectories(
        torch.cat([part.terminal_states for part in parts]),
        torch.cat(rows),
        torch.cat([part.states for part in parts]),
        torch.cat([part.actions for part in parts]),
        torch.cat(amounts) if amounts else None,
        torch.cat([part.children for part in parts]),
        torch.cat([part.masks for part in parts]),
        torch.cat(asked),
    )


def forward_order(part: Trajectories) -> Trajectories:
    """The same trajectories with transitions in the order of their steps."""
    if not part.is_reversed:
        return part
    return Trajectories(
        part.terminal_states,
        part.rows.flip(0),
        part.states.flip(0),
        part.actions.flip(0),
        None if part.amounts is None else part.amounts.flip(0),
        part.children.flip(0),
        part.masks.flip(0),
        None if part.asked is None else part.asked.flip(0),
    )


def columns(steps: list[tuple[Tensor, ...]]) -> list[Tensor]:
    """Each field of all steps, one behind the other."""
    return [torch.cat(column) for column in zip(*steps, strict=True)]
