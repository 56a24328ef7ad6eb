"""The generative flow network: a policy trained to sample candidates in proportion to a reward."""

from __future__ import annotations

import copy
import math
import os
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

from sampler import LOSSES
from sampler.asking import LogReward, checked
from sampler.balance import Batch, evaluate, inputs_of
from sampler.checkpoint import read, write
from sampler.collection import (
    Collector,
    Sources,
    backward_outputs,
    beta_of,
    forward_outputs,
    make_local_search,
)
from sampler.environment import Environment
from sampler.exact import TooManyStatesError, lookup, terminal_distribution
from sampler.losses import Balance, Loss
from sampler.policy import Activations, Policy, masked_log_softmax
from sampler.registry import resolve
from sampler.replay import make_replay
from sampler.restricted_sampling import n_at_once, sample_restricted
from sampler.rollout import Behaviour, Trajectories, roll_back, roll_out
from sampler.schedule import EarlyStopping, Schedule, Shape
from sampler.tabulated import tabulate

_MAX_STATES_ENUMERATED = 50_000
_LOG_Z_MOMENTUM = 0.05
_LAST_LEARNING_RATE = 0.01


class GFlowNet:
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
    and `log_prob` then take `beta` (1 if left out, which the range should hold then).
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
        _check_options(hidden, learning_rate, log_z_learning_rate, exploration)
        _check_more_options(temperature, ema, beta_range, sub_trajectory_decay)
        self.device = _device(device)
        is_home = environment.initial_states(0).device == self.device
        self.environment = environment if is_home else environment.to(self.device)
        self._outside = environment  # callers' states and rewards live where their space does
        self.exploration, self.temperature = exploration, temperature
        self.log_reward_floor = log_reward_floor
        self.n_steps, self.batch_size = n_steps, batch_size
        self.n_steps_trained = 0
        self.early_stopping = EarlyStopping(patience, tolerance)
        self._schedule = Schedule(schedule, schedule_steps)
        self._loss: Loss = resolve(loss, LOSSES, "loss")
        self._check_loss(loss)
        self._max_states_tabulated = max_states_tabulated
        self._decay = sub_trajectory_decay
        self._beta_range = None if beta_range is None else (beta_range[0], beta_range[1])
        self._ema_decay = ema
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
        self._rates = (learning_rate, log_z_learning_rate)
        self._optimizer = self._new_optimizer()
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

    @property
    def _home(self) -> torch.device:
        """Where the caller's space has its states."""
        return self._outside.initial_states(0).device

    @property
    def log_z(self) -> float:
        """The learned log of the total reward, Σ over candidates of R (of R^β: see `log_z_at`)."""
        return self.log_z_at(1.0 if self._beta_range is not None else None)

    @torch.no_grad()
    def log_z_at(self, beta: float | None) -> float:
        """The learned log of Σ R^β; without `beta_range`, `beta` is None."""
        conditions = self._conditions(beta, 1)
        log_z = float(self.policy.log_z_at(conditions))
        if self._loss.needs not in ("log_flow", "edges"):
            return log_z
        states = self.environment.initial_states(1)
        outputs = self.policy(inputs_of(self.environment, states, conditions))
        if self._loss.needs == "log_flow":
            return log_z + float(self.policy.log_flow(outputs))
        mask = self.environment.forward_mask(states)
        logits = self.policy.forward_logits(outputs).masked_fill(~mask, -math.inf)
        return log_z + float(logits.double().logsumexp(dim=1))

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
        states drawn uniformly from `examples` `(m, w)` and is replayed backward; a share may come
        from replay; the rest comes from the policy. `seed` begins anew: the random stream and early
        stopping restart (they go on otherwise). `on_step(step, loss)` is called after each step.
        ValueError when a log reward is NaN or +inf, RuntimeError when `log_reward` raises: the
        message names the candidate. RuntimeError also when the loss is not finite.
        """
        n_steps = self.n_steps if n_steps is None else n_steps
        batch_size = self.batch_size if batch_size is None else batch_size
        n_examples = _n_examples(batch_size, examples, example_fraction)
        if self._loss.needs == "nothing" and batch_size < 2:
            raise ValueError(
                "log_partition_variance: expected a batch_size of 2 or more, got "
                f"{batch_size}: one trajectory has no variance"
            )
        _check_examples(self._outside, examples)
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
            losses.append(self._take_step(batch, rewards))
            if on_step is not None:
                on_step(step, losses[-1])
            if self.early_stopping.is_enough(losses[-1]):
                break
        return losses

    @torch.no_grad()
    def sample(
        self,
        n: int,
        seed: int | None = None,
        *,
        where: Mapping[str, Any] | None = None,
        beta: float | None = None,
        n_tries: int = 64,
    ) -> Tensor:
        """Draw n terminal states `(n, w)` from the trained policy, without exploration.

        With a `seed` the answer depends on the weights and it alone; without, the sampler's own
        stream moves on. `where` restricts the space, see the environment's `restricted`: up to
        `n_tries` times as many trajectories are drawn under its masks, and n of them kept such that
        they approach the trained distribution inside the restriction (UserWarning where these
        were too few). `beta`: the exponent of the reward, with `beta_range`.
        """
        generator = self._generator
        if seed is not None:
            generator = torch.Generator(self.device).manual_seed(seed)
        policy = self.policy if self._average is None else self._average
        if not all(bool(weight.isfinite().all()) for weight in policy.parameters()):
            raise RuntimeError(
                "the weights hold NaN or infinity: training diverged; take a lower learning_rate"
            )
        behaviour = Behaviour(policy.forward_logits, policy.amount_outputs)
        if where:
            restricted = self.environment.restricted(where)
            conditions = self._conditions(beta, n_at_once(n, n_tries))
            outputs = forward_outputs(self.environment, policy, conditions)
            found = sample_restricted(
                self.environment, restricted, outputs, n, n_tries, generator, behaviour
            )
            return found.to(self._home)
        conditions = self._conditions(beta, n)
        can_merge = self._collector.merges_states and conditions is None
        outputs = forward_outputs(self.environment, policy, conditions)
        return roll_out(
            self.environment, outputs, n, generator, behaviour, can_merge=can_merge
        ).terminal_states.to(self._home)

    @torch.no_grad()
    def log_prob(
        self, states: Tensor, n_samples: int = 100, seed: int = 0, *, beta: float | None = None
    ) -> Tensor:
        """Log-probability (density) of sampling each terminal state, `(n,)` float64.

        Exact where one trajectory leads to each state (a tree), and by enumeration in a discrete
        space of at most 50 000 states without `beta_range`. Elsewhere an estimate from `n_samples`
        backward trajectories τ, log mean P_F(τ) / P_B(τ | x), which is too low on average and exact
        in the limit;
        `sampler.evaluation.estimated_log_prob` gives its standard error.
        """
        states = states.to(self.device)
        generator = torch.Generator(self.device).manual_seed(seed)
        trajectories, log_ratio = self._sample_log_ratio(states, generator, beta)
        if self.environment.is_tree or not self._has_branches(trajectories):
            return log_ratio
        if self.environment.action_heads is None and self._beta_range is None:
            try:
                known, probabilities = terminal_distribution(self, _MAX_STATES_ENUMERATED)
                return lookup(states, known, probabilities).log()
            except TooManyStatesError:
                pass
        ratios = [log_ratio, *self.log_ratios(states, n_samples - 1, generator, beta)]
        return torch.stack(ratios).logsumexp(dim=0) - math.log(n_samples)

    @torch.no_grad()
    def log_ratios(
        self,
        states: Tensor,
        n_samples: int,
        generator: torch.Generator,
        beta: float | None = None,
    ) -> list[Tensor]:
        """Return log P_F(τ) - log P_B(τ | x) of `n_samples` trajectories τ to each state, `(n,)`s.

        The mean of their exponentials is the probability of sampling the state.
        """
        drawn = (self._sample_log_ratio(states, generator, beta) for _ in range(n_samples))
        return [log_ratio for _, log_ratio in drawn]

    @torch.no_grad()
    def forward_log_ratios(
        self, n: int, generator: torch.Generator, beta: float | None = None
    ) -> tuple[Tensor, Tensor]:
        """Draw n terminal states `(n, w)` as `sample` does, and return them with
        log P_F(τ) - log P_B(τ | x) of the trajectories that led there, float64 `(n,)`.
        """
        policy = self.policy if self._average is None else self._average
        conditions = self._conditions(beta, n)
        outputs = forward_outputs(self.environment, policy, conditions)
        behaviour = Behaviour(policy.forward_logits, policy.amount_outputs)
        trajectories = roll_out(self.environment, outputs, n, generator, behaviour)
        return trajectories.terminal_states, self._log_ratio(policy, trajectories, conditions)

    @torch.no_grad()
    def log_forward(self, states: Tensor) -> Tensor:
        """Return log P_F of every action `(n, a)`; -inf if forbidden."""
        policy = self.policy if self._average is None else self._average
        states = states.to(self.device)
        outputs = policy(inputs_of(self.environment, states, self._conditions(None, len(states))))
        mask = self.environment.forward_mask(states)
        return masked_log_softmax(policy.forward_logits(outputs), mask)

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
        self.n_steps_trained = content["n_steps_trained"]

    def _behaviour(self) -> Behaviour:
        """How trajectories are drawn at this step of training."""
        step = self.n_steps_trained
        return Behaviour(
            self.policy.forward_logits,
            self.policy.amount_outputs,
            exploration=self._schedule.between(self.exploration, 0.0, step),
            temperature=self._schedule.between(self.temperature, 1.0, step),
        )

    def _take_step(self, batch: Batch, rewards: Tensor) -> float:
        if batch.conditions is not None:
            assert self._beta_range is not None  # noqa: S101
            rewards = rewards * beta_of(self._beta_range, batch.conditions)
        balance = self._balance(batch, rewards)
        if self.n_steps_trained == 0:
            # Start log Z where the first batch is balanced on average: Adam moves it by no more
            # than its learning rate a step, which a reward of e^100 would need a thousand for.
            with torch.no_grad():
                self.policy.log_z.sub_(balance.residuals().mean().nan_to_num(posinf=0, neginf=0))
            self._collector.activations.cut(batch.n_asked)
            balance = self._balance(batch, rewards)
        loss = self._loss(balance)
        if self._loss.needs == "nothing" and self._beta_range is not None:
            loss = loss + self._log_z_loss(balance)
        value = loss.item()
        if not math.isfinite(value):
            raise RuntimeError(
                f"the loss is {value} at training step {self.n_steps_trained}: expected a finite "
                "number; the weights are as before this step, take a lower learning_rate"
            )
        for group in self._optimizer.param_groups:  # zero_grad does the same, a tenth as fast
            for parameter in group["params"]:
                parameter.grad = None
        loss.backward()  # type: ignore[no-untyped-call]
        for group, rate in zip(self._optimizer.param_groups, self._rates, strict=True):
            group["lr"] = self._schedule.between(
                rate, _LAST_LEARNING_RATE * rate, self.n_steps_trained
            )
        self._optimizer.step()
        if self._loss.needs == "nothing" and self._beta_range is None:
            self._follow_log_z(balance)
        self.n_steps_trained += 1
        self._move_average()
        return value

    def _balance(self, batch: Batch, log_reward: Tensor) -> Balance:
        return evaluate(
            self.environment,
            self.policy,
            self._collector.activations,
            batch,
            log_reward,
            self._loss.needs,
            self._decay,
        )

    @torch.no_grad()
    def _follow_log_z(self, balance: Balance) -> None:
        """Let log Z, which the loss does not need, follow the estimates that the batch gives."""
        estimates = balance.log_reward - balance.log_ratio()
        self.policy.log_z.lerp_(estimates.mean().float(), _LOG_Z_MOMENTUM)

    def _log_z_loss(self, balance: Balance) -> Tensor:
        """The same where log Z is a function of the condition: regression on the estimates."""
        estimates = balance.log_reward - balance.log_ratio().detach()
        return (balance.log_z - estimates).square().mean()

    def _move_average(self) -> None:
        if self._average is None or self._ema_decay is None:
            return
        # Early averages lean on the present: the weights of the start are no better than noise.
        decay = min(self._ema_decay, self.n_steps_trained / (self.n_steps_trained + 9))
        with torch.no_grad():
            torch._foreach_lerp_(
                list(self._average.parameters()), list(self.policy.parameters()), 1 - decay
            )

    def _sample_log_ratio(
        self, states: Tensor, generator: torch.Generator, beta: float | None
    ) -> tuple[Trajectories, Tensor]:
        """One backward trajectory a state, and its log P_F - log P_B `(n,)`."""
        policy = self.policy if self._average is None else self._average
        conditions = self._conditions(beta, len(states))
        trajectories = roll_back(
            self.environment,
            states,
            backward_outputs(self.environment, policy, conditions),
            generator,
            Behaviour(logits=policy.backward_logits),
        )
        return trajectories, self._log_ratio(policy, trajectories, conditions)

    def _log_ratio(
        self, policy: Policy, trajectories: Trajectories, conditions: Tensor | None
    ) -> Tensor:
        """Return log P_F(τ) - log P_B(τ | x) of each trajectory, float64 `(n,)`."""
        log_reward = torch.zeros(len(trajectories), dtype=torch.float64, device=self.device)
        balance = evaluate(
            self.environment,
            policy,
            Activations(policy.widths, self.device),
            Batch(trajectories, conditions),
            log_reward,
            "nothing",
            self._decay,
        )
        return balance.log_ratio()

    def _has_branches(self, trajectories: Trajectories) -> bool:
        if self.environment.action_heads is not None:
            return True
        n_parents = self.environment.backward_mask(trajectories.children).sum(dim=1)
        return bool((n_parents > 1).any())

    def _conditions(self, beta: float | None, n: int) -> Tensor | None:
        """Where β lies in its range, from -1 to 1, `(n,)`; None without a range."""
        if self._beta_range is None:
            if beta is not None:
                raise ValueError("beta: this sampler was made without beta_range")
            return None
        low, high = self._beta_range
        beta = 1.0 if beta is None else beta
        if not low <= beta <= high:
            raise ValueError(f"beta: expected one in {self._beta_range}, got {beta}")
        place = 2 * (math.log(beta) - math.log(low)) / (math.log(high) - math.log(low)) - 1
        return torch.full((n,), place, device=self.device)

    def _new_optimizer(self) -> torch.optim.Optimizer:
        named = list(self.policy.named_parameters())
        weights = [p for name, p in named if not name.startswith("log_z")]
        log_z = [p for name, p in named if name.startswith("log_z")]
        groups = [{"params": weights, "lr": self._rates[0]}]
        groups.append({"params": log_z, "lr": self._rates[1]})
        return torch.optim.Adam(groups, fused=True)

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


def _device(name: str) -> torch.device:
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise ValueError(f"device: expected 'auto', 'cpu' or 'cuda', got {name!r}") from error
    if device.type == "cuda" and not torch.cuda.is_available():
        raise ValueError(f"device: {name!r} was asked for, but torch sees no CUDA device here")
    return device


def _check_options(
    hidden: tuple[int, ...], learning_rate: float, log_z_learning_rate: float, exploration: float
) -> None:
    if len(hidden) == 0 or min(hidden) < 1:
        raise ValueError(f"hidden: expected at least one width, each 1 or more, got {hidden}")
    if learning_rate <= 0 or log_z_learning_rate <= 0:
        raise ValueError(
            f"learning rates: expected above 0, got {learning_rate} and {log_z_learning_rate}"
        )
    if not 0 <= exploration <= 1:
        raise ValueError(f"exploration: expected a share from 0 to 1, got {exploration}")


def _check_more_options(
    temperature: float,
    ema: float | None,
    beta_range: tuple[float, float] | None,
    sub_trajectory_decay: float,
) -> None:
    if temperature <= 0:
        raise ValueError(f"temperature: expected above 0, got {temperature}")
    if ema is not None and not 0 < ema < 1:
        raise ValueError(f"ema: expected a decay between 0 and 1, got {ema}")
    if beta_range is not None and not 0 < beta_range[0] < beta_range[1] < math.inf:
        raise ValueError(f"beta_range: expected 0 < low < high, got {beta_range}")
    if sub_trajectory_decay <= 0:
        raise ValueError(f"sub_trajectory_decay: expected above 0, got {sub_trajectory_decay}")


def _check_examples(environment: Environment, examples: Tensor | None) -> None:
    """ValueError names the first of the examples that is not a finished candidate."""
    if examples is None or len(examples) == 0:
        return
    is_open = ~environment.is_terminal(examples)
    if bool(is_open.any()):
        raise ValueError(
            "examples: expected terminal states, such as encode gives, got "
            f"{examples[is_open][0].tolist()}, which is not finished"
        )


def _n_examples(batch_size: int, examples: Tensor | None, fraction: float) -> int:
    """How many trajectories of a batch are replayed examples."""
    if batch_size < 1:
        raise ValueError(f"batch_size: expected at least 1, got {batch_size}")
    if not 0 <= fraction <= 1:
        raise ValueError(f"example_fraction: expected a share from 0 to 1, got {fraction}")
    if examples is None or len(examples) == 0:
        return 0
    return round(batch_size * fraction)
