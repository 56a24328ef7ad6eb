"""The generative flow network: a policy trained to sample candidates in proportion to a reward."""

from __future__ import annotations

import copy
import os
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from sampler import LOSSES
from sampler.asking import LogReward, checked
from sampler.checkpoint import read, write
from sampler.collection import Collector, Sources, make_local_search
from sampler.environment import Environment
from sampler.learning import Learner
from sampler.losses import Loss
from sampler.options import (
    check_examples,
    check_more_options,
    check_options,
    find_device,
    n_examples_of,
)
from sampler.policy import Policy
from sampler.registry import resolve
from sampler.replay import make_replay
from sampler.rollout import Behaviour
from sampler.sampling import Sampling
from sampler.schedule import EarlyStopping, Schedule, Shape
from sampler.tabulated import tabulate


class GFlowNet(Sampling):
    """A sampler of terminal states with probability in proportion to their reward.

    Bengio et al. 2021 (arXiv 2106.04399); trained by `loss`, trajectory balance by default
    (Malkin et al. 2022, arXiv 2201.13259). Training again goes on from the present weights and
    optimiser, so that one sampler follows a reward that changes from round to round. In a
    continuous space the reward is a density over the states.

    Network: `hidden` widths of the trunk; `is_backward_learned`: learn P_B instead of the uniform
    one (without effect on a tree, and for flow matching, which has none); `device`: "auto" (CUDA
    if there is one), "cpu", "cuda", …
    Steps: `learning_rate`, `log_z_learning_rate`, `n_steps` and `batch_size` of a `train` whose
    caller names neither, `sub_trajectory_decay` the λ of sub-trajectory balance.
    `schedule` ("constant", "linear", "cosine") takes the learning rates to a hundredth, and
    `exploration` and `temperature` to 0 and 1, over the first `schedule_steps` steps.
    Exploration while training: `exploration`, the share of uniformly random actions;
    `temperature`, which divides the logits; `replay`, options of `sampler.replay.Replay`;
    `local_search`, options of `sampler.collection.LocalSearch`.
    `beta_range`: train one model for all rewards R^β with β in this range (log-uniform); `sample`
    and `log_prob` then take `beta` (if left out 1, or the end of the range
    that is nearest to it).
    `ema`: sample from weights averaged with this decay.
    `patience`, `tolerance`: see `sampler.schedule.EarlyStopping`.
    `merges_states`: ask the network once for trajectories that are in the same state at the same
    step; the answers are the same to rounding. `max_states_tabulated`: a discrete space of up to
    so many states is written down when training begins, for speed alone; 0: never.
    `log_reward_floor`: log rewards below it, -inf (a reward of zero) included, count as it.
    Everything random follows from `seed`, bit for bit on one machine.
    """

    def __init__(
        self,
        environment: Environment,
        loss: str = "trajectory_balance",
        seed: int = 0,
        *,
        hidden: tuple[int, ...] = (256, 256),
        is_backward_learned: bool = False,
        learning_rate: float = 1e-3,
        log_z_learning_rate: float = 1e-1,
        sub_trajectory_decay: float = 0.9,
        schedule: Shape = "constant",
        schedule_steps: int | None = None,
        exploration: float = 0.01,
        temperature: float = 1.0,
        replay: dict[str, Any] | None = None,
        local_search: dict[str, Any] | None = None,
        beta_range: tuple[float, float] | None = None,
        ema: float | None = None,
        patience: int | None = None,
        tolerance: float = 0.01,
        log_reward_floor: float = -100.0,
        n_steps: int = 1000,
        batch_size: int = 64,
        merges_states: bool = True,
        max_states_tabulated: int = 25_000,
        device: str = "auto",
    ) -> None:
        check_options(hidden, learning_rate, log_z_learning_rate, exploration)
        check_more_options(temperature, ema, beta_range, sub_trajectory_decay)
        self.device = find_device(device)
        is_home = environment.initial_states(0).device == self.device
        self.environment = environment if is_home else environment.to(self.device)
        self._outside = environment  # callers' states and rewards live where their space does
        self.exploration, self.temperature = exploration, temperature
        self.log_reward_floor = log_reward_floor
        self.n_steps, self.batch_size = n_steps, batch_size
        self.early_stopping = EarlyStopping(patience, tolerance)
        self._schedule = Schedule(schedule, schedule_steps)
        self._loss: Loss = resolve(loss, LOSSES, "loss")
        self._loss_needs = self._loss.needs
        self._check_loss(loss)
        self._max_states_tabulated = max_states_tabulated
        self._beta_range = None if beta_range is None else (beta_range[0], beta_range[1])
        self._hidden = tuple(hidden)
        self.policy = Policy(
            environment.n_policy_inputs,
            environment.n_actions,
            self._hidden,
            has_backward=is_backward_learned
            and not environment.is_tree
            and self._loss.needs != "edges",
            has_flow=self._loss.needs == "log_flow",
            n_heads=len(environment.circular_heads),
            is_conditional=beta_range is not None,
            seed=seed,
        ).to(self.device)
        self._average = copy.deepcopy(self.policy) if ema is not None else None
        self._learner = Learner(
            self.environment,
            self.policy,
            self._average,
            self._loss,
            self._schedule,
            rates=(learning_rate, log_z_learning_rate),
            ema=ema,
            decay=sub_trajectory_decay,
            beta_range=self._beta_range,
        )
        self._optimizer = self._learner.optimizer
        # Not the seed itself: the weights were drawn from that stream.
        self._generator = torch.Generator(self.device).manual_seed(seed + 1)
        self.replay = make_replay(self.environment, replay)
        self._collector = Collector(
            self.environment,
            self.policy,
            self._generator,
            self.replay,
            make_local_search(local_search),
            self._beta_range,
            merges_states=merges_states,
        )
        self._merges_states = merges_states

    @property
    def n_steps_trained(self) -> int:
        """Gradient steps taken so far, over all calls of `train`."""
        return self._learner.n_steps_trained

    def train(
        self,
        log_reward: LogReward,
        n_steps: int | None = None,
        batch_size: int | None = None,
        *,
        seed: int | None = None,
        examples: Tensor | None = None,
        example_fraction: float = 0.0,
        on_step: Callable[[int, float], None] | None = None,
    ) -> list[float]:
        """Take up to `n_steps` gradient steps towards `log_reward`; the loss of each step.

        A step uses `batch_size` trajectories. A share `example_fraction` of them ends in terminal
        states drawn uniformly from `examples` `(m, w)` and is replayed backward (ValueError where
        it is 0 and there are examples); a share may come
        from replay; the rest comes from the policy. `seed` begins anew: the random stream and early
        stopping restart (they go on otherwise). `on_step(step, loss)` is called after each step.
        ValueError when a log reward is NaN or +inf, RuntimeError when `log_reward` raises: the
        message names the candidate. RuntimeError also when the loss is not finite.
        """
        n_steps = self.n_steps if n_steps is None else n_steps
        batch_size = self.batch_size if batch_size is None else batch_size
        n_examples = n_examples_of(batch_size, examples, example_fraction)
        if self._loss.needs == "nothing" and batch_size < 2:
            raise ValueError(
                "log_partition_variance: expected a batch_size of 2 or more, got "
                f"{batch_size}: one trajectory has no variance"
            )
        check_examples(self._outside, examples)
        ask = checked(self._outside, log_reward, self.log_reward_floor)
        if seed is not None:
            self._generator.manual_seed(seed)
        if seed is not None or self.early_stopping.has_stopped:
            self.early_stopping.reset()
        if self.replay is not None:
            self.replay.rescore(ask)
        if self._collector.table is None and self._beta_range is None:
            self._collector.table = tabulate(self.environment, self._max_states_tabulated)
        examples = examples.to(self.device) if examples is not None else None
        sources = Sources(batch_size, examples, n_examples)
        losses = []
        for step in range(n_steps):
            batch, rewards = self._collector.collect(sources, self._behaviour(), ask)
            losses.append(self._learner.take_step(batch, rewards, self._collector.activations))
            if on_step is not None:
                on_step(step, losses[-1])
            if self.early_stopping.is_enough(losses[-1]):
                break
        return losses

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write everything that training depends on; the file appears whole or not at all."""
        content = {
            "shape": self._shape(),
            "policy": self.policy.state_dict(),
            "average": None if self._average is None else self._average.state_dict(),
            "optimizer": self._optimizer.state_dict(),
            "generator": self._generator.get_state(),
            "replay": None if self.replay is None else self.replay.state(),
            "early_stopping": self.early_stopping.state(),
            "n_steps_trained": self.n_steps_trained,
        }
        write(path, content)

    def load(self, path: str | os.PathLike[str]) -> None:
        """Go on from what `save` wrote; training then continues bit for bit.

        ValueError when the file is of another space or network.
        """
        content = read(path, self._shape(), self.device)
        self.policy.load_state_dict(content["policy"])
        if self._average is not None:
            self._average.load_state_dict(content["average"])
        self._optimizer.load_state_dict(content["optimizer"])
        self._generator.set_state(content["generator"].cpu())
        if self.replay is not None:
            self.replay.restore(content["replay"])
        self.early_stopping.restore(content["early_stopping"])
        self._learner.n_steps_trained = content["n_steps_trained"]

    def _behaviour(self) -> Behaviour:
        """How trajectories are drawn at this step of training."""
        step = self.n_steps_trained
        return Behaviour(
            self.policy.forward_logits,
            self.policy.amount_outputs,
            exploration=self._schedule.between(self.exploration, 0.0, step),
            temperature=self._schedule.between(self.temperature, 1.0, step),
        )

    def _check_loss(self, name: str) -> None:
        if self._loss.needs == "edges" and self.environment.action_heads is not None:
            raise ValueError(
                f"loss {name!r} sums over the parents of a state, which form a continuum in this "
                "space; take trajectory_balance, or another loss"
            )

    def _shape(self) -> dict[str, Any]:
        return {
            "n_policy_inputs": self.environment.n_policy_inputs,
            "n_actions": self.environment.n_actions,
            "hidden": list(self._hidden),
            "n_outputs": self.policy.n_outputs,
            "loss_needs": self._loss.needs,
            "beta_range": None if self._beta_range is None else list(self._beta_range),
            "has_average": self._average is not None,
            "has_replay": self.replay is not None,
        }
