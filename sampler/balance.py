"""From trajectories to both sides of the flow equations, with gradients to the policy.

Named axes: n trajectories, t transitions of all of them, w state columns, a actions.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from sampler import amounts as mixtures
from sampler.activations import Activations
from sampler.environment import Environment
from sampler.losses import Balance, Need
from sampler.policy import Policy, chosen_log_probability, log_probability
from sampler.rollout import Trajectories, heads_of
from sampler.rows import unique_rows


@dataclass(frozen=True)
class Batch:
    """Trajectories to train on; `conditions` `(n,)` are what the policy is told, if anything."""

    trajectories: Trajectories
    conditions: Tensor | None = None
    groups: Tensor | None = None

    @property
    def n_asked(self) -> int:
        """How many answers of the network the transitions use."""
        asked = self.trajectories.asked
        return len(self.trajectories.rows) if asked is None else int(asked.max()) + 1


def inputs_of(environment: Environment, states: Tensor, conditions: Tensor | None) -> Tensor:
    """What the policy network sees, `(m, p)`, with conditions `(m,)` as a last column."""
    inputs = environment.policy_inputs(states)
    if conditions is None:
        return inputs
    return torch.cat([inputs, conditions[:, None].to(inputs.dtype)], dim=1)


def evaluate(
    environment: Environment,
    policy: Policy,
    activations: Activations,
    batch: Batch,
    log_reward: Tensor,
    needs: Need,
    decay: float,
) -> Balance:
    """What the losses compare. The first rows of `activations` are what `asked` refers to.

    Transitions whose activations are not there yet are run now, and so are the terminal states
    where the backward policy is learned.
    """
    trajectories, conditions = batch.trajectories, batch.conditions
    asked = _completed(environment, policy, activations, batch)
    n_asked = activations.n
    if policy.has_backward:
        policy.run(inputs_of(environment, trajectories.terminal_states, conditions), activations)
    edges = _asked_parents(environment, policy, activations, batch) if needs == "edges" else None
    outputs = policy.recalled(activations)
    log_z = policy.log_z_at(conditions)
    log_z_of_step = log_z if log_z.ndim == 0 else log_z[trajectories.rows]
    has_order = needs in ("log_flow", "edges")
    balance = Balance(
        log_forward=_log_forward(environment, policy, trajectories, outputs[:n_asked], asked),
        log_backward=_log_backward(environment, policy, trajectories, outputs, asked, n_asked),
        rows=trajectories.rows,
        log_reward=log_reward,
        log_z=log_z,
        log_flow=policy.log_flow(outputs)[asked] + log_z_of_step if policy.has_flow else None,
        following=trajectories.following if has_order else None,
        ordered=trajectories.ordered if has_order else None,
        groups=batch.groups,
        decay=decay,
    )
    if edges is None:
        return balance
    log_outflow = _log_outflow(policy, trajectories, outputs[asked], log_z_of_step, log_reward)
    log_inflow = _log_inflow(policy, outputs, edges) + log_z_of_step
    return Balance(**{**vars(balance), "log_inflow": log_inflow, "log_outflow": log_outflow})


def _completed(
    environment: Environment, policy: Policy, activations: Activations, batch: Batch
) -> Tensor:
    """Run what was not asked in the rollout; the row of `activations` of each transition `(t,)`."""
    trajectories, conditions = batch.trajectories, batch.conditions
    asked = trajectories.asked
    if asked is None:
        asked = torch.arange(len(trajectories.rows), device=trajectories.rows.device)
    missing = (asked >= activations.n).nonzero()[:, 0]
    if len(missing) > 0:
        told = None if conditions is None else conditions[trajectories.rows[missing]]
        policy.run(inputs_of(environment, trajectories.states[missing], told), activations)
    return asked


def _log_forward(
    environment: Environment,
    policy: Policy,
    trajectories: Trajectories,
    outputs: Tensor,
    asked: Tensor,
) -> Tensor:
    """Return log P_F of each transition, a density where its action carries an amount; `(t,)`."""
    logits, actions = policy.forward_logits(outputs), trajectories.actions
    masks = torch.ones(logits.shape, dtype=torch.bool, device=logits.device)
    masks[asked] = trajectories.masks  # equal states have equal masks
    log_policy = chosen_log_probability(logits, masks, asked, actions)
    if trajectories.amounts is None:
        return log_policy
    heads, is_circular = heads_of(environment, actions)
    has_amount = (heads >= 0).nonzero()[:, 0]
    density = mixtures.log_density(
        policy.amount_outputs(outputs, heads[has_amount], asked[has_amount]),
        trajectories.amounts[has_amount],
        is_circular[has_amount],
    )
    width = environment.log_width(trajectories.states[has_amount], actions[has_amount])
    return log_policy.double().index_add(0, has_amount, density - width)


def _log_backward(
    environment: Environment,
    policy: Policy,
    trajectories: Trajectories,
    outputs: Tensor,
    asked: Tensor,
    n_asked: int,
) -> Tensor:
    """Return log P_B of each transition, a density where parents form a continuum; `(t,)`."""
    children, actions = trajectories.children, trajectories.actions
    if environment.is_tree:
        return torch.zeros(len(actions), device=actions.device)
    mask = environment.backward_mask(children)
    if policy.has_backward:
        ends = torch.arange(n_asked, len(outputs), device=asked.device)
        at_children = torch.cat([asked, ends])[trajectories.following]
        logits = policy.backward_logits(outputs)[at_children]
        log_policy = log_probability(logits, mask, actions)
    else:
        log_policy = -mask.sum(dim=1).float().log()
    if environment.action_heads is None:
        return log_policy
    return log_policy - environment.log_width_back(children, actions)


def _log_outflow(
    policy: Policy,
    trajectories: Trajectories,
    outputs: Tensor,
    log_z: Tensor,
    log_reward: Tensor,
) -> Tensor:
    """Log of the flow out of each child, `(t,)`: over its actions, or its reward at the end."""
    logits = policy.forward_logits(outputs).masked_fill(~trajectories.masks, -math.inf)
    inner = logits.double().logsumexp(dim=1) + log_z
    return torch.cat([inner, log_reward])[trajectories.following]


@dataclass(frozen=True)
class _Edges:
    """Edges into the children of all transitions: from which answer, by which action."""

    mask: Tensor  # (t, a): the backward mask of each child; the edges are its entries, in order
    asked: Tensor  # (e,): which of the network's answers is that of the parent
    actions: Tensor  # (e,)


def _asked_parents(
    environment: Environment, policy: Policy, activations: Activations, batch: Batch
) -> _Edges:
    """Ask about every parent of every child, about equal ones once."""
    trajectories, n_before = batch.trajectories, activations.n
    mask = environment.backward_mask(trajectories.children)
    rows, actions = mask.nonzero(as_tuple=True)
    parents = environment.step_back(trajectories.children[rows], actions)
    if batch.conditions is None:
        told, (parents, which) = None, unique_rows(parents)
    else:  # under another condition a state is another one to the policy
        told = batch.conditions[trajectories.rows[rows]]
        which = torch.arange(len(parents), device=parents.device)
    policy.run(inputs_of(environment, parents, told), activations)
    return _Edges(mask, which + n_before, actions)


def _log_inflow(policy: Policy, outputs: Tensor, edges: _Edges) -> Tensor:
    """Log of the flow into each child over all of its parents, less log Z; `(t,)`."""
    flows = policy.forward_logits(outputs)[edges.asked, edges.actions].double()
    every = flows.new_full(edges.mask.shape, -math.inf)
    return every.masked_scatter(edges.mask, flows).logsumexp(dim=1)
