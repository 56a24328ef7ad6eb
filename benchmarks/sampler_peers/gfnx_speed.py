# ruff: noqa: E402  (the environment is set before JAX reads it)
# mypy: disable-error-code="import-not-found, misc, no-any-return, untyped-decorator"
"""How fast gfnx trains: trajectory balance, one thread, one CPU core.

    PEERS_VENV/bin/python gfnx_speed.py --task grid --batch 16 --steps 200 --seed 0 --json

A program of its own, run by the peers' Python (`requirements.txt`); it imports nothing of ours.
`torchgfn_speed.py` beside it does the same task, with the same options and line of output.

What is used, and why it is the fastest honest way through this library that we found:

- Its own environments, `forward_rollout` and `forward_trajectory_log_probs`; network, loss and
  optimiser (optax, one learning rate for log Z) written out, as all its baselines write them out.
- One jitted train step, its memory donated, called from Python (`--loop python`). Its baselines
  put all steps in one `fori_loop`; on a CPU that measured 16, 14 and 7 times slower (grid, batch
  16, 128, 1024: 250, 360 and 700 trajectories a CPU-second), so `fori` is only an option here.
- The gradient, `--gradient`: `batched` puts all visited states through the network again at once,
  as its baselines do, but as one plain matrix (three axes, as in the baselines, measured a third
  slower); `rollout` differentiates through the rollout and reuses its logits, no second forward
  pass. `auto` takes what measured faster: batched up to 64 trajectories, rollout above.
- The grid with the exact bound on trajectory length, 29; its own 32 would make it do more steps.
- No exploration, metrics or logging. Compiling and 5 steps of warm-up are not timed.
- XLA's `--xla_cpu_use_xnnpack`: 10 % faster at batch 16, no different at 128 and 1024.
- Tried, within 8 % (about the noise between runs) and left out: 512-bit vectors, the `unsafe_rbg`
  generator, parameters outside the scan's carry.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import json
import os
import time
from functools import partial
from typing import Any

# One core, before JAX counts them: no thread pool of XLA can use more, and the process's CPU time
# is its own. The flags say the same to XLA.
os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
os.environ["OMP_NUM_THREADS"] = "1"
os.environ["JAX_PLATFORMS"] = "cpu"
os.environ["XLA_FLAGS"] = (
    "--xla_cpu_multi_thread_eigen=false intra_op_parallelism_threads=1 --xla_cpu_use_xnnpack=true"
)

import flax.linen as nn
import gfnx
import jax
import jax.numpy as jnp
import optax
from gfnx.base import BaseRewardModule
from gfnx.environment.sequence import FixedAutoregressiveSequenceEnvironment

DIMS, SIDE = 4, 8
LENGTH, LETTERS = 30, 4
EMPTY = LETTERS  # the padding token, one-hot as zeros
WARM_UP = 5
BATCHED_UP_TO = 64  # trajectories: see `--gradient` above


class Grid(gfnx.HypergridEnvironment):
    """Its grid with the exact bound on a trajectory's length: 29 steps here, its own says 32."""

    @property
    def max_steps_in_episode(self) -> int:
        """Each axis to its end, then stop."""
        return self.dim * (self.side - 1) + 1


class Dna(FixedAutoregressiveSequenceEnvironment):
    """Its fixed-length sequence, 30 letters; what the policy sees is one-hot, not tokens."""

    @property
    def name(self) -> str:
        """Its name."""
        return "DNA-30"

    def get_obs(self, state: Any, env_params: Any) -> Any:
        """`(n, 120)` float32: the letters one-hot, zeros where there is none."""
        return jax.nn.one_hot(state.tokens, LETTERS).reshape(len(state.tokens), -1)


class DnaReward(BaseRewardModule):
    """log R = 0.3 · #{i: letter i = i mod 4}."""

    def init(self, rng_key: Any, dummy_state: Any) -> None:
        """It has no parameters."""

    def log_reward(self, state: Any, env_params: Any) -> Any:
        """0.3 for each letter in its place."""
        return 0.3 * (state.tokens == jnp.arange(LENGTH) % LETTERS).sum(-1)

    def reward(self, state: Any, env_params: Any) -> Any:
        """Its exponential."""
        return jnp.exp(self.log_reward(state, env_params))


class Policy(nn.Module):
    """MLP of two layers of 256 with ReLU."""

    n_actions: int

    @nn.compact
    def __call__(self, inputs: Any) -> Any:
        """Logits of the actions."""
        hidden = nn.relu(nn.Dense(256)(inputs))
        hidden = nn.relu(nn.Dense(256)(hidden))
        return nn.Dense(self.n_actions)(hidden)


def make_environment(task: str) -> Any:
    """The environment of a task, with its reward."""
    if task == "grid":
        return Grid(gfnx.GeneralHypergridRewardModule(R0=0.01, R1=0.5, R2=2.0), dim=DIMS, side=SIDE)
    tokens = {"bos_token": LETTERS + 1, "eos_token": LETTERS + 2, "pad_token": EMPTY}
    return Dna(DnaReward(), max_length=LENGTH, nchar=LETTERS, ntoken=LETTERS + 3, **tokens)


def make_train(task: str, batch: int, seed: int, gradient: str, loop: str) -> tuple[Any, Any]:
    """Return `(train, state)`: `train(state, n_steps) → state`, whose last part is the loss."""
    env = make_environment(task)
    key, env_key, net_key = jax.random.split(jax.random.key(seed), 3)
    env_params = env.init(env_key)
    policy = Policy(env.action_space.n)
    first_obs, _ = env.reset(1, env_params)
    params = {"policy": policy.init(net_key, first_obs), "log_z": jnp.array(0.0)}
    labels = {"policy": "policy", "log_z": "log_z"}
    optimizer = optax.multi_transform(
        {"policy": optax.adam(1e-3), "log_z": optax.adam(0.1)}, labels
    )
    n_back = env.backward_action_space.n

    def outputs(obs: Any, weights: Any) -> dict[str, Any]:
        logits = policy.apply(weights, obs)
        return {"forward_logits": logits, "backward_logits": jnp.zeros((*obs.shape[:-1], n_back))}

    def policy_fn(_: Any, obs: Any, weights: Any) -> tuple[Any, Any]:
        info = outputs(obs, weights)
        return info["forward_logits"], info

    def roll_out(rng: Any, weights: Any) -> Any:
        return gfnx.utils.forward_rollout(rng, batch, policy_fn, weights, env, env_params)

    def loss_of(weights: Any, trajectories: Any, log_reward: Any) -> Any:
        log_pf, log_pb = gfnx.utils.forward_trajectory_log_probs(env, trajectories, env_params)
        return jnp.square(weights["log_z"] + log_pf - log_pb - log_reward).mean()

    def through_rollout(weights: Any, rng: Any) -> Any:
        trajectories, summary = roll_out(rng, weights["policy"])
        return loss_of(weights, trajectories, summary["log_gfn_reward"])

    def after_rollout(weights: Any, rng: Any) -> Any:
        trajectories, summary = roll_out(rng, jax.lax.stop_gradient(weights["policy"]))
        # Two axes, not three: XLA's CPU matrix product is fast only for plain matrices.
        rows = trajectories.obs.reshape(-1, trajectories.obs.shape[-1])
        info = outputs(rows, weights["policy"])
        info = {name: x.reshape(batch, -1, x.shape[-1]) for name, x in info.items()}
        again = trajectories.replace(info=info)
        return loss_of(weights, again, summary["log_gfn_reward"])

    objective = {"rollout": through_rollout, "batched": after_rollout}[gradient]

    def step(_: Any, state: Any) -> Any:
        weights, moments, rng, _loss = state
        rng, sample_rng = jax.random.split(rng)
        loss, slopes = jax.value_and_grad(objective)(weights, sample_rng)
        updates, moments = optimizer.update(slopes, moments, weights)
        return optax.apply_updates(weights, updates), moments, rng, loss

    @partial(jax.jit, donate_argnums=0)
    def all_steps(state: Any, n_steps: Any) -> Any:
        return jax.lax.fori_loop(0, n_steps, step, state)

    one_step = jax.jit(partial(step, 0), donate_argnums=0)

    def step_by_step(state: Any, n_steps: int) -> Any:
        for _ in range(n_steps):
            state = one_step(state)
        return state

    train = {"python": step_by_step, "fori": all_steps}[loop]
    return train, (params, optimizer.init(params), key, jnp.array(0.0))


def main() -> None:
    """Train, and print one line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--task", choices=["grid", "dna"], required=True)
    parser.add_argument("--batch", type=int, required=True)
    parser.add_argument("--steps", type=int, required=True)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--gradient", choices=["auto", "batched", "rollout"], default="auto")
    parser.add_argument("--loop", choices=["auto", "python", "fori"], default="auto")
    parser.add_argument("--json", action="store_true", help="print JSON (else a readable line)")
    options = parser.parse_args()
    if min(options.batch, options.steps) < 1:
        parser.error("--batch and --steps: expected at least 1")
    gradient = options.gradient
    if gradient == "auto":
        gradient = "batched" if options.batch <= BATCHED_UP_TO else "rollout"
    loop = "python" if options.loop == "auto" else options.loop
    train, state = make_train(options.task, options.batch, options.seed, gradient, loop)
    state = train(state, 1)  # compiles
    first = float(state[-1])
    state = jax.block_until_ready(train(state, WARM_UP - 1))
    began = time.process_time()
    state = jax.block_until_ready(train(state, options.steps))
    seconds = time.process_time() - began
    trajectories = options.batch * options.steps
    result = {
        "peer": "gfnx",
        "version": importlib.metadata.version("gfnx"),
        "task": options.task,
        "batch": options.batch,
        "trajectories": trajectories,
        "cpu_seconds": seconds,
        "trajectories_per_cpu_second": trajectories / seconds,
        "loss_first": first,
        "loss_last": float(state[-1]),
        "variant": f"{gradient}, {loop}",
    }
    print(json.dumps(result) if options.json else result)


if __name__ == "__main__":
    main()
