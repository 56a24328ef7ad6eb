"""Trajectories backward, from finished candidates to the initial state.

Named axes: n trajectories, m rows that go on, w state columns.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from sampler.choices import Behaviour, Noise, check_choices, check_length, choose
from sampler.environment import Environment
from sampler.trajectories import Trajectories, columns

Outputs = Callable[[Tensor, Tensor], Tensor]
"""From states `(m, w)` and the trajectories `(m,)` they belong to, to the policy's outputs."""


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
    mask = environment.backward_mask(states)
    while (len(rows) > 0 and len(steps) != n_steps) or not steps:
        check_length(environment.max_steps, len(steps), states)
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
        mask = environment.backward_mask(parents)
        has_parent = mask.any(dim=1)
        states, rows, mask = parents[has_parent], rows[has_parent], mask[has_parent]
    rows, parents, actions, states, masks, *amounts = columns(steps)
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


def every_way_back(
    environment: Environment, terminal_states: Tensor
) -> tuple[Trajectories, Tensor]:
    """All trajectories that end in `terminal_states`, in a space with `Environment.n_ways`.

    And the index of the state that each leads to, `(ways,)`.
    """
    states = terminal_states
    origins = torch.arange(len(states), device=states.device)
    steps: list[tuple[Tensor, ...]] = []
    while bool((mask := environment.backward_mask(states)).any()):
        check_length(environment.max_steps, len(steps), states)
        is_open = mask.any(dim=1)
        mask[:, 0] |= ~is_open  # ways that are complete wait for the others
        rows, actions = mask.nonzero(as_tuple=True)
        states, origins, is_open = states[rows], origins[rows], is_open[rows]
        parents = states.clone()
        parents[is_open] = environment.step_back(states[is_open], actions[is_open])
        steps = [tuple(column[rows] for column in step) for step in steps]
        steps.append((parents, actions, states, is_open))
        states = parents
    ways = torch.arange(len(states), device=states.device)
    taken: list[tuple[Tensor, ...]] = [
        (ways[is_open], parents[is_open], actions[is_open], children[is_open])
        for parents, actions, children, is_open in steps
    ]
    rows, parents, actions, children = columns(taken)
    trajectories = Trajectories(
        terminal_states[origins],
        rows,
        parents,
        actions,
        None
        if environment.action_heads is None
        else environment.amounts_between(parents, actions, children),
        children,
        environment.forward_mask(parents),
        is_reversed=True,
    )
    return trajectories, origins
