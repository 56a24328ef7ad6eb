# ruff: noqa: E402  (threads and path are set before the libraries read them)
"""What the sampler reaches, beside torchgfn and gfnx in one run; the table is docs/sampler.md's.

    .venv/bin/python benchmarks/sampler.py                  # everything, about half an hour
    .venv/bin/python benchmarks/sampler.py --only grid_l1   # one part; the others stay as they are

The peers get a venv of their own in benchmarks/results/peers, from sampler_peers/requirements.txt.
One thread, pinned to one core, CPU time throughout. Speed is measured in turns, every program once
in each repeat, after a warm-up; the ratio is that of the medians. Results are kept in
benchmarks/results/sampler.json, and the table is printed from there.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import statistics
import subprocess
import sys
import time
import venv
from collections import Counter
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

os.environ["OMP_NUM_THREADS"] = "1"
# This file has the name of the package it measures, and its folder comes first on the path.
sys.path[0] = str(Path(__file__).parent.parent)

import torch
from torch import Tensor

from sampler import GFlowNet, environment
from sampler.activations import Recalled, multiply_in_blocks
from sampler.environment import Environment
from sampler.exact import (
    empirical_distribution,
    l1,
    lookup,
    target_distribution,
    terminal_distribution,
    total_variation,
)
from sampler.policy import Policy
from sampler.rewards import corner_modes, corners

HERE = Path(__file__).parent
RESULTS = HERE / "results" / "sampler.json"
PEERS = HERE / "results" / "peers"
LOSSES = (
    "flow_matching",
    "detailed_balance",
    "trajectory_balance",
    "sub_trajectory_balance",
    "log_partition_variance",
)
Result = dict[str, Any]


def grid(n_dims: int, length: int, r0: float) -> tuple[Environment, Callable[[Tensor], Tensor]]:
    """A hyper-grid and its corners reward."""
    space = environment("hyper_grid", n_dims=n_dims, length=length)
    return space, corners(space, r0=r0)


def dna() -> tuple[Environment, Callable[[Tensor], Tensor]]:
    """Words of 30 letters, rewarded for each letter in its place; as in the peers' scripts."""
    space = environment("sequence", alphabet="ACGT", min_length=30, max_length=30)
    wanted = torch.arange(30) % 4 + 1
    return space, lambda states: 0.3 * (states[:, :30] == wanted).sum(dim=1).double()


def grid_l1(seeds: range) -> Result:
    """Sampled L1 after 32,000 trajectories of batch 128, R0 = 0.1, learning rate 3e-3."""
    answer = {}
    for length in (8, 16):
        space, log_reward = grid(2, length, 0.1)
        states, target = target_distribution(space, log_reward)
        values = []
        for seed in seeds:
            net = GFlowNet(space, seed=seed, learning_rate=3e-3)
            net.train(log_reward, 250, 128)
            values.append(float(l1(empirical_distribution(net.sample(200_000), states), target)))
        answer[f"{length}x{length}"] = values
    return answer


def five_losses(seeds: range) -> Result:
    """4-D grid of side 8, R0 = 0.01: exact L1 over its initial value after 40,000 trajectories."""
    space, log_reward = grid(4, 8, 0.01)
    _, target = target_distribution(space, log_reward)
    log_z = float(log_reward(target_distribution(space, log_reward)[0]).logsumexp(dim=0))
    answer: Result = {}
    for loss in LOSSES:
        runs = []
        for seed in seeds:
            net = GFlowNet(
                space, loss, seed, learning_rate=3e-3, schedule="cosine", schedule_steps=2500
            )
            before = float(l1(terminal_distribution(net)[1], target))
            net.train(log_reward, 2500, 16)
            after = float(l1(terminal_distribution(net)[1], target))
            runs.append({"l1_ratio": after / before, "log_z_error": net.log_z - log_z})
        answer[loss] = runs
    return answer


def rare_modes(seeds: range) -> Result:
    """4-D grid of side 8, R0 = 0.001, with exploration: modes found and TV in 200,000."""
    space, log_reward = grid(4, 8, 0.001)
    states, target = target_distribution(space, log_reward)
    modes = corner_modes(space)
    runs = []
    for seed in seeds:
        net = GFlowNet(
            space,
            seed=seed,
            learning_rate=3e-3,
            schedule="cosine",
            schedule_steps=200_000 // 64,
            exploration=0.2,
        )
        net.train(log_reward, 200_000 // 64, 64)
        samples = net.sample(20_000)
        keys = set(space.keys(samples))
        corners_found = {
            tuple(int(x > 3) for x in map(int, key.split(",")))
            for key in space.keys(modes)
            if key in keys
        }
        distance = float(total_variation(terminal_distribution(net)[1], target))
        runs.append({"modes": len(corners_found), "tv": distance})
    return {"runs": runs, "states": len(states)}


def tetris_speed(seeds: range) -> Result:
    """Trajectories per CPU-second on a 10 x 20 board with all pieces, TB, batch 16."""
    space = environment("tetris", width=10, height=20)

    def log_reward(states: Tensor) -> Tensor:
        return space.features(states).mean(dim=1)

    return {"per_second": [ours(space, log_reward, 16, 60, seed, {}) for seed in seeds]}


def tetris_boards(seeds: range) -> Result:
    """Which of the distinct full 4 x 4 boards of I, O, L, J pieces are found, of at least 5 seeds.

    Uniform exploration fades from all to nothing: while it is high it meets every board, of which
    random play makes the rarest 5 times in 100,000. Replay keeps what was met from being forgotten
    before the policy has learned it. These settings were chosen on the seeds 10 to 12. `found`:
    among 20,000 samples of the trained sampler; `met`: among the candidates that training asked a
    reward for; `rarest`: exact probability of the rarest full board, 1 / boards if all are equal.
    """
    from sampler.environments.tetris import full_boards

    space = environment("tetris", width=4, height=4, pieces=["I", "O", "L", "J"])
    boards = full_boards(space)
    known = set(space.keys(boards))
    answer: Result = {"full_boards": len(known), "found": [], "met": [], "rarest": [], "cpu_s": []}
    for seed in range(max(5, len(seeds))):
        met: set[str] = set()
        net = GFlowNet(
            space,
            seed=seed,
            learning_rate=3e-3,
            exploration=1.0,
            schedule="cosine",
            schedule_steps=2000,
            replay={"kind": "prioritized", "fraction": 0.25},
        )
        began = time.process_time()
        net.train(partial(full_board_reward, space, known, met), 2000, 256)
        answer["cpu_s"].append(time.process_time() - began)
        answer["found"].append(len(known & set(space.keys(net.sample(20_000)))))
        answer["met"].append(len(met))
        answer["rarest"].append(float(lookup(boards, *terminal_distribution(net)).min()))
    return answer


def full_board_reward(space: Environment, known: set[str], met: set[str], states: Tensor) -> Tensor:
    """Log reward 8 for the full boards `known`, 0 for others; notes in `met` which were asked."""
    keys = space.keys(states)
    met |= known.intersection(keys)
    return torch.tensor([8.0 if key in known else 0.0 for key in keys])


def ours(
    space: Environment,
    log_reward: Callable[[Tensor], Tensor],
    batch: int,
    steps: int,
    seed: int,
    options: dict[str, Any],
) -> float:
    """Trajectories per CPU-second of our training after a warm-up of five steps."""
    net = GFlowNet(space, seed=seed, exploration=0.0, **options)
    net.train(log_reward, 5, batch)
    began = time.process_time()
    net.train(log_reward, steps, batch)
    return steps * batch / (time.process_time() - began)


SPEED = {
    ("grid", 16): 300,
    ("grid", 128): 100,
    ("grid", 1024): 30,
    ("dna", 16): 150,
    ("dna", 100): 50,
}


def speed(seeds: range) -> Result:
    """Training speed beside the peers, in turns."""
    answer: Result = {}
    for (task, batch), steps in SPEED.items():
        rows: dict[str, list[float]] = {"ours": [], "torchgfn": [], "gfnx": []}
        for seed in seeds:
            space, log_reward = grid(4, 8, 0.01) if task == "grid" else dna()
            rows["ours"].append(ours(space, log_reward, batch, steps, seed, {}))
            for peer in ("torchgfn", "gfnx"):
                rows[peer].append(peer_speed(peer, task, batch, steps, seed))
            print(f"  {task} {batch}: { {k: round(v[-1]) for k, v in rows.items()} }", flush=True)
        answer[f"{task} {batch}"] = rows
    return answer


def peer_speed(peer: str, task: str, batch: int, steps: int, seed: int) -> float:
    """The same measured by a peer's own program."""
    command = [str(peers_python()), str(HERE / "sampler_peers" / f"{peer}_speed.py")]
    command += ["--task", task, "--batch", str(batch), "--steps", str(steps)]
    told = subprocess.run(
        [*command, "--seed", str(seed), "--json"], check=True, capture_output=True, text=True
    ).stdout
    return float(json.loads(told.strip().splitlines()[-1])["trajectories_per_cpu_second"])


def peers_python() -> Path:
    """The Python of the peers' venv, which is made if it is not there."""
    python = PEERS / "bin" / "python"
    if not (PEERS / "ready").exists():
        venv.create(PEERS, with_pip=True)
        wanted = HERE / "sampler_peers" / "requirements.txt"
        subprocess.run([str(python), "-m", "pip", "install", "-q", "-r", str(wanted)], check=True)
        (PEERS / "ready").touch()
    return python


def matmul_share(seeds: range) -> Result:
    """CPU time of the policy's matrix products alone over that of training, 4-D grid.

    The sizes of all products of a training run are recorded, and the same sizes multiplied by
    themselves in the same run; sizes in between are interpolated per row.
    """
    answer: Result = {}
    for merges in (False, True):
        for batch, steps in ((16, 200), (128, 60), (1024, 12)):
            values = []
            for seed in seeds:
                space, log_reward = grid(4, 8, 0.01)
                options = {"merges_states": merges}
                rate = ours(space, log_reward, batch, steps, seed, options)
                forward, backward = products(space, log_reward, batch, steps, seed, options)
                alone = sum(n * seconds(widths, m, False) for (widths, m), n in forward.items())
                alone += sum(n * seconds(widths, m, True) for (widths, m), n in backward.items())
                values.append(alone / (steps * batch / rate))
            answer[f"{batch} {'merged' if merges else 'every state'}"] = values
            print(f"  {batch} merged={merges}: {values}", flush=True)
    return answer


Sizes = Counter[tuple[tuple[int, ...], int]]


def products(
    space: Environment,
    log_reward: Callable[[Tensor], Tensor],
    batch: int,
    steps: int,
    seed: int,
    options: dict[str, Any],
) -> tuple[Sizes, Sizes]:
    """How often the network ran on how many rows, forward and backward, in the run of `ours`."""
    net = GFlowNet(space, seed=seed, exploration=0.0, **options)
    net.train(log_reward, 5, batch)
    forward: Sizes = Counter()
    backward: Sizes = Counter()
    widths = tuple(net.policy.widths)
    run, recalled = Policy.run, Recalled.backward

    def recording_run(self: Policy, inputs: Tensor, activations: Any) -> Tensor:
        forward[widths, len(inputs)] += 1
        return run(self, inputs, activations)

    def recording_backward(ctx: Any, *upstream: Tensor) -> Any:
        backward[widths, len(upstream[0])] += 1
        return recalled(ctx, *upstream)

    Policy.run, Recalled.backward = recording_run, recording_backward  # type: ignore
    try:
        net.train(log_reward, steps, batch)
    finally:
        Policy.run, Recalled.backward = run, recalled  # type: ignore
    return forward, backward


_TIMED: dict[tuple[tuple[int, ...], int, bool], float] = {}


def seconds(widths: tuple[int, ...], m: int, is_backward: bool) -> float:
    """CPU time of the products of one pass over m rows, from the nearest sizes that were timed."""
    size = max(1, min(m, round(1.1 ** round(torch.tensor(float(m)).log().item() / 0.0953))))
    key = (widths, size, is_backward)
    if key not in _TIMED:
        _TIMED[key] = timed_pass(widths, size, is_backward)
    return _TIMED[key] * m / size


def timed_pass(widths: tuple[int, ...], m: int, is_backward: bool) -> float:
    """CPU time of the bare products of one pass into memory that is there, the faster way."""
    ways = [by_torch_backward(widths, m)] if is_backward else forward_ways(widths, m)
    n = max(5, min(300, int(2e5 / m)))
    return min(timed(way, n) for way in ways)


def timed(once: Callable[[], None], n: int) -> float:
    """CPU time of one call, the mean of n."""
    once()
    began = time.process_time()
    for _ in range(n):
        once()
    return (time.process_time() - began) / n


def forward_ways(widths: tuple[int, ...], m: int) -> list[Callable[[], None]]:
    """The products of a forward pass over m rows: by torch, and by blocks of rows as the engine."""
    pairs = list(itertools.pairwise(widths))
    below = [torch.randn(m, a) for a, _ in pairs]
    above = [torch.randn(m, b) for _, b in pairs]
    weights = [torch.randn(a, b) for a, b in pairs]

    def by_torch() -> None:
        for x, weight, y in zip(below, weights, above, strict=True):
            torch.mm(x, weight, out=y)

    def by_blocks() -> None:
        for x, weight, y in zip(below, weights, above, strict=True):
            multiply_in_blocks(x.numpy(), weight.numpy(), y.numpy())

    return [by_torch, by_blocks]


def by_torch_backward(widths: tuple[int, ...], m: int) -> Callable[[], None]:
    """The products of a backward pass over m rows: all weights', and all but the lowest rows'."""
    pairs = list(itertools.pairwise(widths))
    below = [torch.randn(m, a) for a, _ in pairs]
    above = [torch.randn(m, b) for _, b in pairs]
    weights = [torch.randn(b, a) for a, b in pairs]
    sums = [torch.empty(b, a) for a, b in pairs]

    def once() -> None:
        for i in range(len(pairs)):
            torch.mm(above[i].t(), below[i], out=sums[i])
            if i > 0:
                torch.mm(above[i], weights[i], out=below[i])

    return once


PARTS: dict[str, Callable[[range], Result]] = {
    "speed": speed,
    "matmul_share": matmul_share,
    "tetris_speed": tetris_speed,
    "grid_l1": grid_l1,
    "five_losses": five_losses,
    "rare_modes": rare_modes,
    "tetris_boards": tetris_boards,
}


def spread(values: list[float], digits: int = 3) -> str:
    """Median (least to most)."""
    middle, low, high = statistics.median(values), min(values), max(values)
    return f"{middle:,.{digits}f} ({low:,.{digits}f} to {high:,.{digits}f})"


def speed_line(name: str, rows: dict[str, list[float]]) -> str:
    """A row of the table of speeds."""
    median = {who: statistics.median(values) for who, values in rows.items()}
    to_torchgfn = median["ours"] / median["torchgfn"]
    to_gfnx = median["ours"] / median["gfnx"]
    cells = [spread(rows[who], 0) for who in ("ours", "torchgfn", "gfnx")]
    met = "yes" if to_torchgfn >= 3 and to_gfnx >= 1.2 else "no"
    return f"| {name} | {' | '.join(cells)} | {to_torchgfn:.2f}x | {to_gfnx:.2f}x | {met} |"


def table(results: Result) -> str:
    """Everything that has been measured, as Markdown."""
    lines = []
    if "speed" in results:
        lines += ["| task, batch | ours | torchgfn | gfnx | to torchgfn | to gfnx | both reached |"]
        lines += ["|---|---|---|---|---|---|---|"]
        lines += [speed_line(name, rows) for name, rows in results["speed"].items()]
        lines += [""]
    lines += ["| what | wanted | median (least to most) | reached |", "|---|---|---|---|"]
    for name, values in results.get("grid_l1", {}).items():
        bound = {"8x8": 0.027, "16x16": 0.102}[name]
        lines.append(row(f"{name} grid, sampled L1", bound, values, max(values) <= bound))
    for loss, runs in results.get("five_losses", {}).items():
        ratios = [run["l1_ratio"] for run in runs]
        errors = [abs(run["log_z_error"]) for run in runs]
        lines.append(row(f"4-D grid, {loss}, L1 over initial", 0.1, ratios, max(ratios) <= 0.1))
        lines.append(row(f"4-D grid, {loss}, log Z error", 0.05, errors, max(errors) <= 0.05))
    if "rare_modes" in results:
        runs = results["rare_modes"]["runs"]
        modes, tv = [run["modes"] for run in runs], [run["tv"] for run in runs]
        lines.append(row("R0 0.001: modes found", 16, modes, min(modes) == 16, 0))
        lines.append(row("R0 0.001: TV", 0.1, tv, max(tv) <= 0.1))
    for name, values in results.get("matmul_share", {}).items():
        bound = {"16": 0.25, "1024": 0.7}.get(name.split()[0])
        verdict = None if bound is None or "merged" in name else min(values) >= bound
        lines.append(row(f"matmul share, batch {name}", bound, values, verdict, 2))
    if "tetris_speed" in results:
        values = results["tetris_speed"]["per_second"]
        lines.append(row("Tetris 10x20, a CPU-second", 100, values, min(values) >= 100, 0))
    if "tetris_boards" in results:
        told = results["tetris_boards"]
        n = told["full_boards"]
        for name, who in (("among 20,000 samples", "found"), ("met in training", "met")):
            what = f"Tetris 4x4, full boards {name}, {len(told[who])} seeds"
            lines.append(row(what, n, told[who], min(told[who]) == n, 0))
        lines.append(row("Tetris 4x4, probability of the rarest", None, told["rarest"], None, 4))
    return "\n".join(lines)


def row(
    what: str, bound: float | None, values: list[float], verdict: bool | None, digits: int = 3
) -> str:
    """A row of the table of results."""
    reached = "" if verdict is None else "yes" if verdict else "**no**"
    wanted = "" if bound is None else f"{bound:g}"
    return f"| {what} | {wanted} | {spread(values, digits)} | {reached} |"


def main() -> None:
    """Measure the parts that were asked for, keep them, and print the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--only", choices=sorted(PARTS), nargs="*", help="parts to measure")
    parser.add_argument("--seeds", type=int, default=3, help="repeats, each with its own seed")
    parser.add_argument("--table", action="store_true", help="only print what was measured before")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
    RESULTS.parent.mkdir(exist_ok=True)
    results = json.loads(RESULTS.read_text()) if RESULTS.exists() else {}
    for name in [] if arguments.table else arguments.only or PARTS:
        began = time.perf_counter()
        results[name] = PARTS[name](range(arguments.seeds))
        RESULTS.write_text(json.dumps(results, indent=1))
        print(f"{name}: {time.perf_counter() - began:.0f} s", file=sys.stderr, flush=True)
    print(table(results))


if __name__ == "__main__":
    main()
