"""The generative flow network: a policy trained to sample candidates in proportion to a reward."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from sampler import LOSSES
from sampler.environment import Environment
from sampler.exact import TooManyStatesError, lookup, terminal_distribution
from sampler.losses import Balance
from sampler.policy import Policy, masked_log_softmax
from sampler.registry import resolve
from sampler.rollout import Logits, Trajectories, joined, log_backward, roll_back, roll_out

LogReward = Callable[[Tensor], Tensor]
"""From terminal states `(n, w)` to log rewards `(n,)`."""

_FORMAT = 1
_MAX_STATES_ENUMERATED = 50_000


class GFlowNet:
    """A sampler of terminal states with probability in proportion to their reward.

    Bengio et al. 2021 (arXiv 2106.04399); trained by `loss`, trajectory balance by default
    (Malkin et al. 2022, arXiv 2201.13259). Training again goes on from the present weights and
    optimiser, so that one sampler follows a reward that changes from round to round.

    `hidden`: widths of the trunk. `exploration`: share of uniformly random actions while training.
    `is_backward_learned`: learn P_B instead of the uniform one; without effect on a tree.
    `log_reward_floor`: log rewards below it, -inf (a reward of zero) included, count as it.
    `n_steps`, `batch_size`: what `train` does when its caller names neither.
    Everything random follows from `seed`, bit for bit on one machine.
    """

    def __init__(
        self,
        environment: Environment,
        loss: str = "trajectory_balance",
        seed: int = 0,
        *,
        hidden: tuple[int, ...] = (256, 256),
        learning_rate: float = 1e-3,
        log_z_learning_rate: float = 1e-1,
        exploration: float = 0.01,
        is_backward_learned: bool = False,
        log_reward_floor: float = -100.0,
        n_steps: int = 1000,
        batch_size: int = 64,
    ) -> None:
        _check_options(hidden, learning_rate, log_z_learning_rate, exploration)
        self.environment = environment
        self.exploration = exploration
        self.log_reward_floor = log_reward_floor
        self.n_steps = n_steps
        self.batch_size = batch_size
        self.n_steps_trained = 0
        self._loss: Callable[[Balance], Tensor] = resolve(loss, LOSSES, "loss")
        self._hidden = tuple(hidden)
        self.policy = Policy(
            environment.n_policy_inputs,
            environment.n_actions,
            self._hidden,
            has_backward=is_backward_learned,
            seed=seed,
        )
        weights = [p for name, p in self.policy.named_parameters() if name != "log_z"]
        self._optimizer = torch.optim.Adam(
            [
                {"params": weights, "lr": learning_rate},
                {"params": [self.policy.log_z], "lr": log_z_learning_rate},
            ],
            fused=True,
        )
        # Not the seed itself: the weights were drawn from that stream.
        self._generator = torch.Generator().manual_seed(seed + 1)

    @property
    def log_z(self) -> float:
        """The learned log of the total reward, Σ over candidates of R."""
        return self.policy.log_z.item()

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
        """Take `n_steps` gradient steps towards `log_reward`; the loss of each step.

        A step uses `batch_size` trajectories. A share `example_fraction` of them ends in terminal
        states drawn uniformly from `examples` `(m, w)` and is replayed backward; the rest comes
        from the policy. `seed` restarts the random stream (it continues otherwise).
        `on_step(step, loss)` is called after each step. ValueError when a log reward is NaN or
        +inf: the message names the candidate.
        """
        n_steps = self.n_steps if n_steps is None else n_steps
        batch_size = self.batch_size if batch_size is None else batch_size
        n_examples = _n_examples(batch_size, examples, example_fraction)
        if seed is not None:
            self._generator.manual_seed(seed)
        losses = []
        for step in range(n_steps):
            trajectories = self._collect(batch_size - n_examples, n_examples, examples)
            losses.append(self._take_step(trajectories, log_reward))
            if on_step is not None:
                on_step(step, losses[-1])
        return losses

    @torch.no_grad()
    def sample(self, n: int, seed: int | None = None) -> Tensor:
        """Draw n terminal states `(n, w)` from the trained policy, without exploration.

        With a `seed` the answer depends on the weights and it alone; without, the sampler's own
        stream moves on.
        """
        generator = self._generator if seed is None else torch.Generator().manual_seed(seed)
        return roll_out(self.environment, self.policy, n, generator).terminal_states

    @torch.no_grad()
    def log_prob(self, states: Tensor, n_samples: int = 100, seed: int = 0) -> Tensor:
        """Log-probability of sampling each terminal state, `(n,)` float64.

        Exact where one trajectory leads to each state (a tree), and by enumeration in a space of
        at most 50 000 states. Elsewhere an estimate from `n_samples` backward trajectories τ,
        log mean P_F(τ) / P_B(τ | x), which is too low on average and exact in the limit.
        """
        generator = torch.Generator().manual_seed(seed)
        trajectories, log_ratio = self._sample_log_ratio(states, generator)
        if not self._has_branches(trajectories):
            return log_ratio
        try:
            known, probabilities = terminal_distribution(self, _MAX_STATES_ENUMERATED)
        except TooManyStatesError:
            ratios = [log_ratio]
            ratios += [self._sample_log_ratio(states, generator)[1] for _ in range(n_samples - 1)]
            return torch.stack(ratios).logsumexp(dim=0) - torch.tensor(float(n_samples)).log()
        return lookup(states, known, probabilities).log()

    @torch.no_grad()
    def log_forward(self, states: Tensor) -> Tensor:
        """Return log P_F of every action `(n, a)`; -inf if forbidden."""
        logits = self.policy(self.environment.policy_inputs(states))
        return masked_log_softmax(logits, self.environment.forward_mask(states))

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write everything that training depends on; the file appears whole or not at all."""
        content = {
            "format": _FORMAT,
            "shape": self._shape(),
            "policy": self.policy.state_dict(),
            "optimizer": self._optimizer.state_dict(),
            "generator": self._generator.get_state(),
            "n_steps_trained": self.n_steps_trained,
        }
        path = Path(path)
        temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
        with temporary.open("wb") as file:
            torch.save(content, file)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)

    def load(self, path: str | os.PathLike[str]) -> None:
        """Go on from what `save` wrote; training then continues bit for bit.

        ValueError when the file is of another space or network.
        """
        content: dict[str, Any] = torch.load(path, weights_only=True)
        if content.get("format") != _FORMAT or content.get("shape") != self._shape():
            raise ValueError(
                f"{path}: made for {content.get('shape')}, but this sampler is {self._shape()}; "
                "use the same space and hidden widths as when it was saved"
            )
        self.policy.load_state_dict(content["policy"])
        self._optimizer.load_state_dict(content["optimizer"])
        self._generator.set_state(content["generator"])
        self.n_steps_trained = content["n_steps_trained"]

    @torch.no_grad()
    def _collect(self, n: int, n_examples: int, examples: Tensor | None) -> Trajectories:
        if examples is None or n_examples == 0:
            return roll_out(self.environment, self.policy, n, self._generator, self.exploration)
        drawn = torch.randint(len(examples), (n_examples,), generator=self._generator)
        replayed = roll_back(
            self.environment, examples[drawn], self._backward_logits, self._generator
        )
        if n == 0:
            return replayed
        sampled = roll_out(self.environment, self.policy, n, self._generator, self.exploration)
        return joined(sampled, replayed)

    def _take_step(self, trajectories: Trajectories, log_reward: LogReward) -> float:
        balance = self._balance(trajectories, self._checked(log_reward, trajectories))
        if self.n_steps_trained == 0:
            # Start log Z where the first batch is balanced on average: Adam moves it by no more
            # than its learning rate a step, which a reward of e^100 would need a thousand for.
            with torch.no_grad():
                self.policy.log_z.sub_(balance.residuals().mean())
        loss = self._loss(balance)
        self._optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        self._optimizer.step()
        self.n_steps_trained += 1
        return loss.item()

    def _balance(self, trajectories: Trajectories, log_reward: Tensor) -> Balance:
        log_policy = masked_log_softmax(self.policy(trajectories.inputs), trajectories.masks)
        return Balance(
            log_forward=log_policy.gather(1, trajectories.actions[:, None])[:, 0],
            log_backward=log_backward(
                self.environment, trajectories.children, trajectories.actions, self._backward_logits
            ),
            rows=trajectories.rows,
            log_reward=log_reward,
            log_z=self.policy.log_z,
        )

    def _checked(self, log_reward: LogReward, trajectories: Trajectories) -> Tensor:
        """Log rewards `(n,)` float64, floored; ValueError names the first that is NaN or +inf."""
        states = trajectories.terminal_states
        values = torch.as_tensor(log_reward(states)).detach().double()
        if values.shape != (len(states),):
            raise ValueError(
                f"log_reward: expected shape ({len(states)},), got {tuple(values.shape)}"
            )
        is_bad = values.isnan() | (values == torch.inf)
        if bool(is_bad.any()):
            worst = int(is_bad.nonzero()[0])
            key = self.environment.keys(states[worst : worst + 1])[0]
            raise ValueError(
                f"log_reward: expected a finite number or -inf, got {values[worst].item()} "
                f"for candidate {key!r}"
            )
        return values.clamp_min(self.log_reward_floor)

    def _sample_log_ratio(
        self, states: Tensor, generator: torch.Generator
    ) -> tuple[Trajectories, Tensor]:
        """One backward trajectory a state, and its log P_F - log P_B `(n,)`."""
        trajectories = roll_back(self.environment, states, self._backward_logits, generator)
        balance = self._balance(trajectories, torch.zeros(len(states), dtype=torch.float64))
        return trajectories, balance.residuals() - balance.log_z.double()

    def _has_branches(self, trajectories: Trajectories) -> bool:
        n_parents = self.environment.backward_mask(trajectories.children).sum(dim=1)
        return bool((n_parents > 1).any())

    @property
    def _backward_logits(self) -> Logits | None:
        return None if self.policy.backward_head is None else self.policy.backward_logits

    def _shape(self) -> dict[str, Any]:
        return {
            "n_policy_inputs": self.environment.n_policy_inputs,
            "n_actions": self.environment.n_actions,
            "hidden": list(self._hidden),
            "is_backward_learned": self.policy.backward_head is not None,
        }


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


def _n_examples(batch_size: int, examples: Tensor | None, fraction: float) -> int:
    """How many trajectories of a batch are replayed examples."""
    if batch_size < 1:
        raise ValueError(f"batch_size: expected at least 1, got {batch_size}")
    if not 0 <= fraction <= 1:
        raise ValueError(f"example_fraction: expected a share from 0 to 1, got {fraction}")
    if examples is None or len(examples) == 0:
        return 0
    return round(batch_size * fraction)
