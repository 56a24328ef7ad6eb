"""Batched trajectories, forward from the initial state and backward from finished candidates.

Rollouts need no gradient: they record flat transitions, and what the network computed for them in
`Activations`. Finished rows leave the batch, and trajectories that are in the same state at the
same step ask the network once, so the work is that of the distinct states.
Named axes: n trajectories, t transitions of all of them, u asked states, w columns, a actions.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from sampler import amounts as mixtures
from sampler.environment import Environment

Outputs = Callable[[Tensor, Tensor], Tensor]
"""From states `(m, w)` and the trajectories `(m,)` they belong to, to the policy's outputs."""


@dataclass(frozen=True)
class Behaviour:
    """How actions are drawn from the policy's outputs.

    `exploration`: the probability of a uniformly random action (and amount). `temperature`: logits
    are divided by it. `logits`, `mixture`: where in the outputs they are found; None: uniform.
    """

    logits: Callable[[Tensor], Tensor] | None = None
    mixture: Callable[[Tensor, Tensor], Tensor] | None = None
    exploration: float = 0.0
    temperature: float = 1.0


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
    rows, states, actions, children, masks, is_done, *amounts_drawn = _columns(steps)
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


def roll_back(
    environment: Environment,
    terminal_states: Tensor,
    outputs: Outputs | None,
    generator: torch.Generator,
    behaviour: Behaviour | None = None,
    n_steps: int | None = None,
) -> Trajectories:
    """One trajectory that ends in each of `terminal_states`, drawn from the backward policy.

    Without `outputs` that policy is uniform over parents. At most `n_steps` steps are taken; the
    trajectories then begin amid the space.
    """
    behaviour = behaviour or Behaviour()
    states = terminal_states = terminal_states.to(generator.device)
    rows = torch.arange(len(states), device=states.device)
    noise = Noise(environment.n_actions, generator, behaviour.exploration)
    steps: list[tuple[Tensor, ...]] = []
    while (len(rows) > 0 and len(steps) != n_steps) or not steps:
        check_length(environment.max_steps, len(steps), states)
        mask = environment.backward_mask(states)
        answer = mask.float() if outputs is None else outputs(states, rows)
        actions = choose(answer, mask, noise, behaviour)
        check_choices(states, mask, actions)
        if environment.action_heads is None:
            parents = environment.step_back(states, actions)
            extra: tuple[Tensor, ...] = ()
        else:
            drawn = torch.rand(
                len(rows), generator=generator, dtype=torch.float64, device=states.device
            )
            parents = environment.step_back(states, actions, drawn)
            extra = (environment.amounts_between(parents, actions, states),)
        steps.append((rows, parents, actions, states, environment.forward_mask(parents), *extra))
        has_parent = environment.backward_mask(parents).any(dim=1)
        states, rows = parents[has_parent], rows[has_parent]
    rows, parents, actions, states, masks, *amounts = _columns(steps)
    return Trajectories(
        terminal_states,
        rows,
        parents,
        actions,
        amounts[0] if amounts else None,
        states,
        masks,
        is_reversed=True,
    )


class Noise:
    """Random numbers for the choices of a rollout, drawn for several steps at once."""

    _AT_ONCE = 4096

    def __init__(self, n_actions: int, generator: torch.Generator, exploration: float) -> None:
        self._n_actions, self.generator, self._exploration = n_actions, generator, exploration
        self.never = torch.tensor(-math.inf, device=generator.device)
        self._gumbel: list[Tensor] = []
        self._keeps: list[Tensor] = []

    def draw(self, m: int) -> tuple[Tensor, Tensor | None]:
        """Negative Gumbel variates `(m, a)`, and 0 for rows that explore, else 1, `(m, 1)`."""
        if not self._gumbel or len(self._gumbel[-1]) < m:
            self._refill(m)
        gumbel = self._gumbel.pop()
        keeps = self._keeps.pop() if self._exploration > 0 else None
        if len(gumbel) > m:
            return gumbel[:m], None if keeps is None else keeps[:m]
        return gumbel, keeps

    def _refill(self, m: int) -> None:
        n_steps = max(1, min(16, self._AT_ONCE // max(1, m * self._n_actions)))
        device = self.generator.device
        drawn = torch.empty(n_steps, m, self._n_actions, device=device)
        # The logarithm of an exponential variate is a negative Gumbel variate.
        drawn.exponential_(generator=self.generator).log_()
        self._gumbel = list(drawn.unbind(0))
        if self._exploration > 0:
            uniform = torch.rand(n_steps, m, 1, generator=self.generator, device=device)
            self._keeps = list((uniform >= self._exploration).float().unbind(0))


def choose(outputs: Tensor, mask: Tensor, noise: Noise, behaviour: Behaviour) -> Tensor:
    """One allowed action a row, `(m,)`, by the Gumbel-max trick: argmax of logits + Gumbel noise.

    Where none is allowed the answer is arbitrary: see `check_choices`.
    """
    gumbel, keeps = noise.draw(len(mask))
    if behaviour.logits is None:
        scores = gumbel.neg()
    else:
        logits = behaviour.logits(outputs)
        if behaviour.temperature != 1.0:
            logits = logits / behaviour.temperature
        if keeps is not None:
            logits = logits * keeps
        scores = logits - gumbel
    return torch.where(mask, scores, noise.never).argmax(dim=1)


def check_choices(states: Tensor, masks: Tensor, actions: Tensor) -> None:
    """RuntimeError, naming the state, where a chosen action was not allowed."""
    if len(actions) == 0:
        return
    is_allowed = masks.gather(1, actions[:, None])[:, 0]
    if not bool(is_allowed.all()):
        row = int((~is_allowed).nonzero()[0])
        state = states[row].tolist()
        if bool(masks[row].any()):
            raise RuntimeError(
                f"the policy's logits are not finite in the state {state}: training diverged, "
                "take a lower learning_rate"
            )
        raise RuntimeError(f"dead end: the state {state} allows no action")


def _drawn_amounts(
    environment: Environment,
    states: Tensor,
    actions: Tensor,
    outputs: Tensor,
    generator: torch.Generator,
    behaviour: Behaviour,
) -> Tensor:
    """Amounts of the chosen actions, float64 `(m,)`; without a mixture uniform in their range."""
    heads, is_circular = heads_of(environment, actions)
    low, high = environment.amount_range(states, actions)
    width = mixtures.range_width(low, high)
    flat = torch.rand(len(low), generator=generator, dtype=torch.float64, device=low.device)
    uniform = (low + width * flat).remainder(1.0)
    if behaviour.mixture is None:
        return uniform
    parameters = behaviour.mixture(outputs, heads)
    drawn = mixtures.draw(parameters, is_circular, generator)
    if bool((width < 1).any()):
        within = mixtures.draw_within(parameters, is_circular, low, high, generator)
        drawn = torch.where(width < 1, within, drawn)
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


def _columns(steps: list[tuple[Tensor, ...]]) -> list[Tensor]:
    return [torch.cat(column) for column in zip(*steps, strict=True)]


def check_length(max_steps: int, n_steps: int, states: Tensor) -> None:
    """RuntimeError, naming a state, when trajectories go on after `max_steps` steps."""
    if n_steps >= max_steps and len(states) > 0:
        raise RuntimeError(
            f"a trajectory is longer than max_steps = {max_steps}, "
            f"in the state {states[0].tolist()}"
        )
