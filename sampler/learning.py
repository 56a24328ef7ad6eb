"""A training step: from a batch of trajectories and their rewards to new weights."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from sampler.activations import QUIET, Activations
from sampler.adam import Adam
from sampler.balance import Batch, evaluate
from sampler.collection import beta_of
from sampler.environment import Environment
from sampler.losses import Balance, Loss
from sampler.policy import Policy
from sampler.schedule import Schedule

_LOG_Z_MOMENTUM = 0.05
_LAST_LEARNING_RATE = 0.01


class Learner:
    """Moves the weights of a policy, and their `average` if there is one, down a loss.

    `rates` are the learning rates of the weights and of log Z, `ema` the decay of the average,
    `decay` the λ of sub-trajectory balance.
    """

    def __init__(
        self,
        environment: Environment,
        policy: Policy,
        average: Policy | None,
        loss: Loss,
        schedule: Schedule,
        *,
        rates: tuple[float, float],
        ema: float | None,
        decay: float,
        beta_range: tuple[float, float] | None,
    ) -> None:
        self._environment, self._policy, self._average = environment, policy, average
        self._loss, self._schedule, self._rates = loss, schedule, rates
        self._ema_decay, self._decay, self._beta_range = ema, decay, beta_range
        self.n_steps_trained = 0
        named = list(policy.named_parameters())
        weights = [p for name, p in named if not name.startswith("log_z")]
        log_z = [p for name, p in named if name.startswith("log_z")]
        groups = [{"params": weights, "lr": rates[0]}, {"params": log_z, "lr": rates[1]}]
        self.optimizer = Adam(groups)

    @QUIET
    def take_step(self, batch: Batch, rewards: Tensor, activations: Activations) -> float:
        """Train on a batch whose first answers are in `activations`; its loss.

        RuntimeError where that is not finite; the weights then stay as they are.
        """
        if batch.conditions is not None:
            assert self._beta_range is not None  # noqa: S101
            rewards = rewards * beta_of(self._beta_range, batch.conditions)
        balance = self._balance(batch, rewards, activations)
        if self.n_steps_trained == 0:
            # Start log Z where the first batch is balanced on average: Adam moves it by no more
            # than its learning rate a step, which a reward of e^100 would need a thousand for.
            with torch.no_grad():
                self._policy.log_z.sub_(balance.residuals().mean().nan_to_num(posinf=0, neginf=0))
            activations.cut(batch.n_asked)
            balance = self._balance(batch, rewards, activations)
        loss = self._loss(balance)
        if self._loss.needs == "nothing" and self._beta_range is not None:
            loss = loss + self._log_z_loss(balance)
        value = loss.item()
        if not math.isfinite(value):
            raise RuntimeError(
                f"the loss is {value} at training step {self.n_steps_trained}: expected a finite "
                "number; the weights are as before this step, take a lower learning_rate"
            )
        self.optimizer.forget_gradients()
        loss.backward()  # type: ignore[no-untyped-call]
        for group, rate in zip(self.optimizer.param_groups, self._rates, strict=True):
            group["lr"] = self._schedule.between(
                rate, _LAST_LEARNING_RATE * rate, self.n_steps_trained
            )
        self.optimizer.advance()
        if self._loss.needs == "nothing" and self._beta_range is None:
            self._follow_log_z(balance)
        self.n_steps_trained += 1
        self._move_average()
        return value

    def _balance(self, batch: Batch, log_reward: Tensor, activations: Activations) -> Balance:
        return evaluate(
            self._environment,
            self._policy,
            activations,
            batch,
            log_reward,
            self._loss.needs,
            self._decay,
        )

    @torch.no_grad()
    def _follow_log_z(self, balance: Balance) -> None:
        """Let log Z, which the loss does not need, follow the estimates that the batch gives."""
        estimates = balance.log_reward - balance.log_ratio()
        self._policy.log_z.lerp_(estimates.mean().float(), _LOG_Z_MOMENTUM)

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
                list(self._average.parameters()), list(self._policy.parameters()), 1 - decay
            )
