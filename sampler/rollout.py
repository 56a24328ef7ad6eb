"""Batched trajectories, forward from the initial state; what they need besides is imported here.

Rollouts need no gradient: they record flat transitions, and what the network computed for them in
`Activations`. Finished rows leave the batch, and trajectories that are in the same state at the
same step ask the network once, so the work is that of the distinct states.
Named axes: n trajectories, t transitions of all of them, u asked states, w columns, a actions.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from sampler import amounts as mixtures
from sampler.backward_rollout import Outputs, roll_back
from sampler.choices import Behaviour, Noise, check_choices, check_length, choose
from sampler.environment import Environment
from sampler.trajectories import Trajectories, columns, forward_order, joined

__all__ = [
    "Behaviour",
    "Merger",
    "Noise",
    "Outputs",
    "Trajectories",
    "check_choices",
    "check_length",
    "choose",
    "forward_order",
    "heads_of",
    "joined",
    "roll_back",
    "roll_out",
]


def roll_out(
    environment: Environment,
    outputs: Outputs,
    n: int,
    generator: torch.Generator,
    behaviour: Behaviour,
    start: Tensor | None = None,
    *,
    can_merge: bool = False,
) -> Trajectories:
    """Sample n trajectories of the forward policy, from the initial state or from `start` `(n, w)`.

    `can_merge`: the outputs depend on the state alone, and equal states may be asked once.
    RuntimeError at a dead end, and beyond `max_steps`; both name a state.
    """
    states = environment.initial_states(n) if start is None else start
    first = states = states.to(generator.device)
    rows = torch.arange(n, device=states.device)
    if start is not None:
        is_running = ~environment.is_terminal(states)
        states, rows = states[is_running], rows[is_running]
    merger = Merger(states.shape[1], states.device) if can_merge else None
    noise = Noise(environment.n_actions, generator, behaviour.exploration)
    asked: list[Tensor | int] = []  # which answers each step used; a number: one a row, in order
    with torch.inference_mode():  # the columns below are copies, free to meet a gradient
        steps = list(_steps(environment, outputs, states, rows, merger, noise, behaviour, asked))
    rows, states, actions, children, masks, is_done, *amounts_drawn = columns(steps)
    check_choices(states, masks, actions)
    terminal_states = first.clone()
    terminal_states[rows[is_done]] = children[is_done]
    return Trajectories(
        terminal_states,
        rows,
        states,
        actions,
        amounts_drawn[0] if amounts_drawn else None,
        children,
        masks,
        _places(asked, rows.device),
    )


def _steps(
    environment: Environment,
    outputs: Outputs,
    states: Tensor,
    rows: Tensor,
    merger: Merger | None,
    noise: Noise,
    behaviour: Behaviour,
    asked: list[Tensor | int],
) -> Iterator[tuple[Tensor, ...]]:
    """Step all rows until each is terminal: (rows, states, actions, children, masks, is_done, …).

    Once without rows too: the answer keeps its shape.
    """
    n_steps = 0
    while len(rows) > 0 or n_steps == 0:
        check_length(environment.max_steps, n_steps, states)
        n_steps += 1
        groups = merger.groups(states) if merger is not None else None
        if groups is None:
            mask, answer = environment.forward_mask(states), outputs(states, rows)
            asked.append(len(rows))
        else:
            one, which = groups
            distinct = states[one]
            mask = environment.forward_mask(distinct)[which]
            answer = outputs(distinct, rows[one])[which]
            asked.append(which)
        actions = choose(answer, mask, noise, behaviour)
        try:
            if environment.action_heads is None:
                children = environment.step(states, actions)
                extra: tuple[Tensor, ...] = ()
            else:
                amounts = _drawn_amounts(
                    environment, states, actions, answer, noise.generator, behaviour
                )
                children = environment.step(states, actions, amounts)
                extra = (amounts,)
            is_done = environment.is_terminal(children)
        except (IndexError, RuntimeError):
            check_choices(states, mask, actions)
            raise
        yield (rows, states, actions, children, mask, is_done, *extra)
        if bool(is_done.any()):
            going = is_done.logical_not().nonzero().squeeze(1)
            states, rows = children.index_select(0, going), rows.index_select(0, going)
        else:
            states = children


def _places(asked: list[Tensor | int], device: torch.device) -> Tensor | None:
    """Which answer each transition used, counted over all steps, `(t,)`; None: each its own."""
    if all(isinstance(step, int) for step in asked):
        return None
    places, n = [], 0
    for step in asked:
        own = torch.arange(step, device=device) if isinstance(step, int) else step
        places.append(own + n)
        n += step if isinstance(step, int) else int(step.max()) + 1
    return torch.cat(places)


class Merger:
    """Finds rows of a batch that are in the same state, as long as there are many of them.

    Trajectories part as they go on, so once most rows differ it no longer looks.
    """

    WORTHWHILE = 0.75
    SMALLEST = 48

    def __init__(self, width: int, device: torch.device) -> None:
        generator = torch.Generator().manual_seed(0)
        self._multipliers = torch.randint(-(2**62), 2**62, (width,), generator=generator).to(device)
        self._is_looking = True

    def groups(self, states: Tensor) -> tuple[Tensor, Tensor] | None:
        """One row of each distinct state `(u,)`, and for each row which of these it is `(m,)`.

        None when that would not save work. Rows are told apart by a hash, which is then checked.
        """
        m = len(states)
        if not self._is_looking or m < self.SMALLEST or states.is_floating_point():
            return None
        codes = (states * self._multipliers).sum(dim=1)
        distinct, which = torch.unique(codes, return_inverse=True)
        if len(distinct) > self.WORTHWHILE * m:
            self._is_looking = False
            return None
        one = torch.empty_like(distinct).scatter_(0, which, torch.arange(m, device=which.device))
        return (one, which) if torch.equal(states[one][which], states) else None


def _drawn_amounts(
    environment: Environment,
    states: Tensor,
    actions: Tensor,
    outputs: Tensor,
    generator: torch.Generator,
    behaviour: Behaviour,
) -> Tensor:
    """Amounts of the chosen actions, float64 `(m,)`; without a mixture uniform in their range.

    Actions without a head get 0, which nothing reads.
    """
    heads, is_circular = heads_of(environment, actions)
    has_amount = (heads >= 0).nonzero()[:, 0]
    amounts = torch.zeros(len(actions), dtype=torch.float64, device=actions.device)
    if len(has_amount) == 0:
        return amounts
    drawn = _drawn_from_heads(
        *environment.amount_range(states[has_amount], actions[has_amount]),
        outputs,
        heads[has_amount],
        has_amount,
        is_circular[has_amount],
        generator,
        behaviour,
    )
    return amounts.index_copy_(0, has_amount, drawn)


def _drawn_from_heads(
    low: Tensor,
    high: Tensor,
    outputs: Tensor,
    heads: Tensor,
    rows: Tensor,
    is_circular: Tensor,
    generator: torch.Generator,
    behaviour: Behaviour,
) -> Tensor:
    """Amounts from `low` to `high` `(k,)` of the `heads` of `rows` of the outputs, `(k,)`."""
    width = mixtures.range_width(low, high)
    flat = torch.rand(len(low), generator=generator, dtype=torch.float64, device=low.device)
    uniform = (low + width * flat).remainder(1.0)
    if behaviour.mixture is None:
        return uniform
    parameters = behaviour.mixture(outputs, heads, rows)
    drawn = mixtures.draw(parameters, is_circular, generator)
    narrow = (width < 1).nonzero()[:, 0]
    if len(narrow) > 0:
        drawn[narrow] = mixtures.draw_within(
            parameters[narrow], is_circular[narrow], low[narrow], high[narrow], generator
        )
    if behaviour.exploration > 0:
        explores = torch.rand(len(low), generator=generator, device=low.device)
        drawn = torch.where(explores < behaviour.exploration, uniform, drawn)
    return drawn


def heads_of(environment: Environment, actions: Tensor) -> tuple[Tensor, Tensor]:
    """The head of each action `(m,)`, -1 for none, and whether it is circular `(m,)` bool."""
    assert environment.action_heads is not None  # noqa: S101
    heads = environment.action_heads.to(actions.device)[actions]
    circular = torch.tensor([*environment.circular_heads, False], device=actions.device)
    return heads, circular[heads]
