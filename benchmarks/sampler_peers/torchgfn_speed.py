# ruff: noqa: E402  (the environment is set before torch reads it)
# mypy: disable-error-code="import-not-found, misc, no-any-return"
"""How fast torchgfn trains: trajectory balance, one thread, one CPU core.

    PEERS_VENV/bin/python torchgfn_speed.py --task grid --batch 16 --steps 200 --seed 0 --json

A program of its own, run by the peers' Python (`requirements.txt`); it imports nothing of ours.
`gfnx_speed.py` beside it does the same task, with the same options and the same line of output.

What is used, and why it is the fastest honest way through this library:

- `Sampler`, `DiscretePolicyEstimator`, `MLP`, `TBGFlowNet`: what its tutorials train with
  (`train_hypergrid_simple.py`). `HyperGrid` is its own; for DNA, which it lacks, a `DiscreteEnv` as
  its guide "Defining Environments" writes one, on states of letters, with no per-row Python.
- On-policy log-probabilities, `--logprobs`: `saved` while sampling and not computed again
  (`save_logprobs=True`, `recalculate_all_logprobs=False`: the tutorial's way, no second forward
  pass), or `recomputed` for the whole batch at once after sampling without a graph (the library's
  default of `loss`). `auto` takes what measured faster: recomputed up to 64 trajectories (grid,
  batch 16: 1,250 against 900 a CPU-second), saved above (batch 1024: 10,000 against 7,000).
- No checks: `debug=False` everywhere (its default), and torch.distributions' argument validation
  off.
- Uniform backward policy by `DiscretePolicyEstimator.uniform` on the bare state, no one-hot of it;
  for DNA no backward policy at all (`pb=None, constant_pb=True`: the graph is a tree).
- `torch.optim.Adam(fused=True)`; no gradient clipping, no finiteness checks, no replay, no ε.
- No `torch.compile`: `--compile` turns on the library's `try_compile_gflownet`. It measured 12 to
  18 % slower at batch 16 and 6 % slower at 1024, with the same short warm-up.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import json
import os
import time
from typing import Any

# One core: no thread pool of any library can use more, and the process's CPU time is its own.
os.environ["OMP_NUM_THREADS"] = "1"
os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})

import torch
from gfn.env import DiscreteEnv
from gfn.estimators import DiscretePolicyEstimator
from gfn.gflownet import TBGFlowNet
from gfn.gym import HyperGrid
from gfn.preprocessors import IdentityPreprocessor, KHotPreprocessor, Preprocessor
from gfn.samplers import Sampler
from gfn.states import DiscreteStates
from gfn.utils.compile import try_compile_gflownet
from gfn.utils.modules import MLP

DIMS, SIDE = 4, 8
LENGTH, LETTERS = 30, 4
WARM_UP = 5
RECOMPUTED_UP_TO = 64  # trajectories: see `--logprobs` above


class Dna(DiscreteEnv):
    """Sequences of 30 letters, appended left to right; log R = 0.3 · #{i: letter i = i mod 4}.

    State `(30,)` int64: a letter 0 … 3, or -1 where there is none yet; the sink is all -2.
    """

    def __init__(self) -> None:
        super().__init__(
            n_actions=LETTERS + 1,
            s0=torch.full((LENGTH,), -1),
            state_shape=(LENGTH,),
            sf=torch.full((LENGTH,), -2),
        )
        self.target = torch.arange(LENGTH) % LETTERS

    def make_states_class(self) -> type[DiscreteStates]:
        """States whose only action is a letter, or the exit once they are full."""
        env = self

        class DnaStates(DiscreteStates):
            state_shape = env.state_shape
            s0, sf, n_actions = env.s0, env.sf, env.n_actions

            def _compute_forward_masks(self) -> torch.Tensor:
                is_full = self.tensor[..., -1:] >= 0
                letters = (~is_full).expand(*self.batch_shape, LETTERS)
                return torch.cat([letters, is_full], dim=-1)

            def _compute_backward_masks(self) -> torch.Tensor:
                last = (self.tensor >= 0).sum(-1, keepdim=True) - 1
                letter = self.tensor.gather(-1, last.clamp(min=0))
                return letter == torch.arange(LETTERS)

        return DnaStates

    def step(self, states: Any, actions: Any) -> Any:
        """Write the letter into the first empty place."""
        place = (states.tensor >= 0).sum(-1, keepdim=True)
        return self.States(states.tensor.scatter(-1, place, actions.tensor))

    def backward_step(self, states: Any, actions: Any) -> Any:
        """Clear the last letter."""
        place = (states.tensor >= 0).sum(-1, keepdim=True) - 1
        return self.States(states.tensor.scatter(-1, place, -1))

    def log_reward(self, states: Any) -> torch.Tensor:
        """0.3 for each letter in its place."""
        return 0.3 * (states.tensor == self.target).sum(-1)


class OneHotLetters(Preprocessor):
    """`(n, 120)` float32: the letters one-hot, zeros where there is none."""

    def __init__(self) -> None:
        super().__init__(output_dim=LENGTH * LETTERS)
        self.letters = torch.arange(LETTERS)

    def preprocess(self, states: Any) -> torch.Tensor:
        """Compare each place with each letter."""
        return (states.tensor.unsqueeze(-1) == self.letters).flatten(-2).float()


def grid() -> tuple[Any, Any, Any]:
    """The 4-D grid of side 8: environment, what the policy sees, uniform backward policy."""
    rewards = {"R0": 0.01, "R1": 0.5, "R2": 2.0}
    env = HyperGrid(DIMS, SIDE, reward_fn_str="original", reward_fn_kwargs=rewards)
    inputs = KHotPreprocessor(height=SIDE, ndim=DIMS)
    bare = IdentityPreprocessor(output_dim=DIMS)
    return env, inputs, DiscretePolicyEstimator.uniform(env.n_actions, preprocessor=bare)


def dna() -> tuple[Any, Any, None]:
    """DNA of length 30: environment, what the policy sees, no backward policy (a tree)."""
    return Dna(), OneHotLetters(), None


def train(
    task: str, batch: int, steps: int, logprobs: str, compiled: bool
) -> tuple[float, float, float]:
    """CPU seconds of `steps` steps after a warm-up, the loss of the first and the last step."""
    env, inputs, backward = {"grid": grid, "dna": dna}[task]()
    network = MLP(inputs.output_dim, env.n_actions, hidden_dim=256, n_hidden_layers=2)
    forward = DiscretePolicyEstimator(network, env.n_actions, preprocessor=inputs)
    model = TBGFlowNet(pf=forward, pb=backward, init_logZ=0.0, constant_pb=backward is None)
    sampler = Sampler(forward)
    groups = [
        {"params": list(network.parameters()), "lr": 1e-3},
        {"params": list(model.logz_parameters()), "lr": 0.1},
    ]
    optimizer = torch.optim.Adam(groups, fused=True)
    if compiled:
        try_compile_gflownet(model)
    is_saved = logprobs == "saved"

    def step() -> torch.Tensor:
        with torch.set_grad_enabled(is_saved):
            trajectories = sampler.sample_trajectories(env, n=batch, save_logprobs=is_saved)
        loss = model.loss(env, trajectories, recalculate_all_logprobs=not is_saved)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
        return loss.detach()

    first = float(step())
    for _ in range(WARM_UP - 1):
        step()
    began = time.process_time()
    for _ in range(steps):
        loss = step()
    return time.process_time() - began, first, float(loss)


def main() -> None:
    """Train, and print one line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--task", choices=["grid", "dna"], required=True)
    parser.add_argument("--batch", type=int, required=True)
    parser.add_argument("--steps", type=int, required=True)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--logprobs", choices=["auto", "saved", "recomputed"], default="auto")
    parser.add_argument("--compile", action="store_true", help="compile the policy's network")
    parser.add_argument("--json", action="store_true", help="print JSON (else a readable line)")
    options = parser.parse_args()
    if min(options.batch, options.steps) < 1:
        parser.error("--batch and --steps: expected at least 1")
    torch.set_num_threads(1)
    torch.manual_seed(options.seed)
    torch.distributions.Distribution.set_default_validate_args(False)
    logprobs = options.logprobs
    if logprobs == "auto":
        logprobs = "recomputed" if options.batch <= RECOMPUTED_UP_TO else "saved"
    seconds, first, last = train(
        options.task, options.batch, options.steps, logprobs, options.compile
    )
    trajectories = options.batch * options.steps
    result = {
        "peer": "torchgfn",
        "version": importlib.metadata.version("torchgfn"),
        "task": options.task,
        "batch": options.batch,
        "trajectories": trajectories,
        "cpu_seconds": seconds,
        "trajectories_per_cpu_second": trajectories / seconds,
        "loss_first": first,
        "loss_last": last,
        "variant": logprobs,
    }
    print(json.dumps(result) if options.json else result)


if __name__ == "__main__":
    main()
