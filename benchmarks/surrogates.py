"""Surrogates side by side: error, calibration and time on four synthetic functions.

    OMP_NUM_THREADS=1 python -m benchmarks.surrogates [--n 200 600 2000] [--seeds 3]

Functions: Branin with a biased cheap fidelity, one target observation in ten; Hartmann-6; and a
20-D function of six features (a Friedman-like sum with a product) seen with noise of a third of
its spread; and words of 12 of 4 letters, whose value counts two gapped motifs, wherever they stand.
Half of Hartmann's, the 20-D and the words' observations are at a cheaper fidelity. RMSE is
against the noiseless target on 1,000 fresh points, in its standard deviations (1: no better than
the mean); NLL in nats and coverage of fresh noisy outcomes, by `surrogate.calibration`; seconds
are of processor time, because a shared machine's clock says little. Rows are means over seeds.
"""

from __future__ import annotations

import argparse
import math
import time
from collections.abc import Callable, Sequence
from importlib import import_module

import torch
from botorch.test_functions import Hartmann
from botorch.test_functions.multi_fidelity import AugmentedBranin
from torch import Tensor

from surrogate import SURROGATES
from surrogate.blocks import Blocks
from surrogate.calibration import calibration
from surrogate.surrogate import Surrogate

Function = Callable[[Tensor, int], Tensor]
"""Noiseless values `(n,)` at `x (n, d)` in the unit cube and fidelity 0 (cheap) or 1 (target)."""

N_QUERY = 1000


def branin(x: Tensor, fidelity: int) -> Tensor:
    """Branin, minus 0.5 of fidelity where cheap."""
    s = torch.full((len(x), 1), 1.0 if fidelity else 0.5, dtype=torch.float64)
    low = torch.tensor([-5.0, 0.0], dtype=torch.float64)
    values: Tensor = AugmentedBranin()(torch.cat([15 * x + low, s], 1))
    return values


def hartmann(x: Tensor, fidelity: int) -> Tensor:
    """Hartmann-6; cheap: shifted, and bent along its first feature."""
    values: Tensor = Hartmann(6)(x)
    return values if fidelity else 0.8 * values + 0.3 * torch.sin(6 * x[:, 0])


def noisy_20d(x: Tensor, fidelity: int) -> Tensor:
    """Six of 20 features matter."""
    bends = torch.sin(math.pi * x[:, 0] * x[:, 1]) + 2 * (x[:, 2] - 0.5) ** 2
    values = bends + x[:, 3] + 0.5 * x[:, 4] * torch.cos(3 * x[:, 5])
    return values if fidelity else values + 0.5 * torch.sin(5 * x[:, 6])


def motifs(x: Tensor, fidelity: int) -> Tensor:
    """How much of `b.d` and `ca..a` the best place has, by product; cheap: the first alone."""
    letters = _letters(x)
    first = _best_match(letters, {0: 1, 2: 3})
    return (1 + first) * (1 + _best_match(letters, {0: 2, 1: 0, 4: 0})) if fidelity else first


def _letters(x: Tensor) -> Tensor:
    return (4 * x).long().clamp_max(3)


def _best_match(letters: Tensor, motif: dict[int, int]) -> Tensor:
    """Largest share of `motif` (letter by offset) over the places, `(n,)`."""
    n_places = letters.shape[1] - max(motif)
    hits = [letters[:, at : at + n_places] == letter for at, letter in motif.items()]
    return torch.stack(hits).double().mean(0).amax(1)


def features(name: str, x: Tensor) -> tuple[Tensor, Blocks | None]:
    """What a surrogate sees of `x (n, d)`, and what the columns are."""
    if name != "motifs":
        return x, None
    one_hot = torch.nn.functional.one_hot(_letters(x), 4).flatten(1).double()
    return one_hot, (("letter", 4),) * x.shape[1]


FUNCTIONS: dict[str, tuple[Function, int, float, float]] = {
    "branin": (branin, 2, 0.1, 0.0),
    "hartmann6": (hartmann, 6, 0.5, 0.0),
    "noisy20": (noisy_20d, 20, 0.5, 0.33),
    "motifs": (motifs, 12, 0.5, 0.0),
}
"""Function, features, the target's share of the observations, noise sd over spread."""


def observe(name: str, n: int, seed: int) -> tuple[tuple[Tensor, Tensor, Tensor], Tensor, Tensor]:
    """`n` observations; then fresh `x (q, d)` and noisy outcomes `(q,)` at the target."""
    function, d, share, noise = FUNCTIONS[name]
    generator = torch.Generator().manual_seed(seed)
    x = torch.rand(n + N_QUERY, d, generator=generator, dtype=torch.float64)
    fidelities = (torch.arange(n + N_QUERY) >= n - math.ceil(share * n)).long()
    clean = torch.where(fidelities == 1, function(x, 1), function(x, 0))
    sd = noise * float(clean[n:].std())
    y = clean + sd * torch.randn(len(x), generator=generator, dtype=torch.float64)
    return (x[:n], fidelities[:n], y[:n]), x[n:], y[n:]


def make(kind: str) -> Surrogate:
    """A new surrogate of a registered kind."""
    module, _, name = SURROGATES[kind].partition(":")
    made: Surrogate = getattr(import_module(module), name)()
    return made


def race(name: str, n: int, kind: str, seed: int) -> dict[str, float]:
    """Figures of one fit."""
    (x, fidelities, y), query, outcomes = observe(name, n, seed)
    seen, blocks = features(name, x)
    model, start = make(kind), time.process_time()
    model.feature_blocks = blocks
    model.fit(seen, fidelities, y, 2, seed)
    fitted = time.process_time()
    mean, sd = model.predict(features(name, query)[0], 1)
    clean = FUNCTIONS[name][0](query, 1)
    of_outcome = (sd.square() + model.noise_variance()[1]).sqrt()
    told = calibration(mean.numpy(), of_outcome.numpy(), outcomes.numpy())
    return {
        "rmse": float((mean - clean).square().mean().sqrt() / clean.std()),
        "nll": float(told["nll"] or 0.0) - math.log(float(clean.std())),
        "cover68": float(told["coverage_68"] or 0.0),
        "cover95": float(told["coverage_95"] or 0.0),
        "fit_s": fitted - start,
        "ask_s": time.process_time() - fitted,
    }


def table(names: Sequence[str], sizes: Sequence[int], kinds: Sequence[str], n_seeds: int) -> None:
    """Print a Markdown table, row by row as they are done."""
    columns = ["rmse", "nll", "cover68", "cover95", "fit_s", "ask_s"]
    print("| function | n | surrogate |", " | ".join(columns), "|")
    print("|---" * (3 + len(columns)) + "|")
    for name in names:
        for n in sizes:
            for kind in kinds:
                figures = [race(name, n, kind, seed) for seed in range(n_seeds)]
                means = [sum(f[c] for f in figures) / n_seeds for c in columns]
                cells = " | ".join(f"{value:.3g}" for value in means)
                print(f"| {name} | {n} | {kind} | {cells} |", flush=True)


def main() -> None:
    """Read the command line and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--functions", nargs="+", default=list(FUNCTIONS), choices=FUNCTIONS)
    parser.add_argument("--n", nargs="+", type=int, default=[200, 600, 2000])
    parser.add_argument("--kinds", nargs="+", choices=sorted(SURROGATES))
    parser.add_argument("--seeds", type=int, default=3)
    given = parser.parse_args()
    kinds = given.kinds or ["multi_fidelity_gp", "deep_kernel", "ensemble"]
    table(given.functions, given.n, kinds, given.seeds)


if __name__ == "__main__":
    main()
