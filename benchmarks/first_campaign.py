# ruff: noqa: E402  (the path is set before the packages are looked for)
"""The default crystal campaign against as many random crystals as the same money buys.

    .venv/bin/python benchmarks/first_campaign.py            # 3 seeds, about 25 minutes on 2 cores
    .venv/bin/python benchmarks/first_campaign.py --seeds 5 --figure docs/images/first_campaign.png

Resumable: each campaign lives in benchmarks/results/first_campaign/ and is finished, not repeated.
Both sides pay the same oracle the same cost; only values paid for at the target fidelity count, and
polymorphs of one compound count once. `random` spends everything on the target.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from pathlib import Path
from typing import Any

# benchmarks/sampler.py has the name of a package, and its folder comes first on the path.
sys.path[0] = str(Path(__file__).parent.parent)

from matplotlib.figure import Figure

from flows.execution import local_runner
from pipeline import Campaign
from pipeline.config import read_yaml
from pipeline.figures import progress_curve
from pipeline.snapshot import read_snapshot

ROOT = Path(__file__).parent
CONFIG = ROOT.parent / "configs" / "crystal_formation_energy.yaml"
RESULTS = ROOT / "results" / "first_campaign"


def ours(seed: int) -> dict[str, Any]:
    """The default campaign under another seed."""
    return read_yaml(CONFIG) | {"name": f"motherlode-{seed}", "seed": seed}


def random_at_target(seed: int) -> dict[str, Any]:
    """The target oracle alone, on as many random crystals as the same budget pays."""
    config = read_yaml(CONFIG) | {"name": f"random-{seed}", "seed": seed}
    target = config["oracles"][-1]
    n = int(config["budget"]["cost"] // target["cost"])
    config["budget"]["rounds"] = 1
    return config | {"oracles": [target], "initial": {"n": {target["fidelity"]: n}}}


def run(config: dict[str, Any]) -> dict[str, Any]:
    """Run or finish one campaign; its figures."""
    began = time.monotonic()
    with Campaign.from_config(config, RESULTS / config["name"], runner=local_runner) as campaign:
        campaign.run()
        best = campaign.best(10)
        frame = campaign.ledger.to_frame()
    at_target = frame[frame["fidelity"] == config["oracles"][-1]["fidelity"]]
    return {
        "method": config["name"].rsplit("-", 1)[0],
        "seed": config["seed"],
        "best": float(best["value"].iloc[0]),
        "top_5": float(best["value"].head(5).mean()),
        "top_10": float(best["value"].mean()),
        "target_queries": len(at_target),
        "failed": int((frame["state"] == "failed").sum()),
        "spend": float(frame["actual_cost"].sum()),
        "seconds": time.monotonic() - began,
    }


def table(rows: list[dict[str, Any]]) -> str:
    """A Markdown table: one row a run, then mean ± standard deviation of each method."""
    columns = ["best", "top_5", "top_10", "target_queries", "failed", "spend"]
    lines = [
        "| method | seed | " + " | ".join(c.replace("_", " ") for c in columns) + " |",
        "|---" * (len(columns) + 2) + "|",
    ]
    for row in rows:
        cells = " | ".join(f"{row[c]:.3f}" if c in columns[:3] else f"{row[c]:g}" for c in columns)
        lines.append(f"| {row['method']} | {row['seed']} | {cells} |")
    for method in dict.fromkeys(row["method"] for row in rows):
        own = [row for row in rows if row["method"] == method]
        cells = " | ".join(_spread([row[c] for row in own]) for c in columns)
        lines.append(f"| **{method}** | mean ± sd | {cells} |")
    return "\n".join(lines)


def _spread(values: list[float]) -> str:
    sd = statistics.stdev(values) if len(values) > 1 else 0.0
    return f"{statistics.mean(values):.3g} ± {sd:.2g}"


def draw(seeds: int, path: Path) -> None:
    """Best value at the target against cost, one line a campaign, into a PNG."""
    figure = Figure(figsize=(7.0, 4.0), layout="constrained")
    axes = figure.subplots()
    for method, colour in (("motherlode", "#0072B2"), ("random", "#E69F00")):
        for seed in range(seeds):
            snapshot = read_snapshot(RESULTS / f"{method}-{seed}")
            curve = progress_curve(snapshot.frame, snapshot.target, snapshot.goal)
            label = method if seed == 0 else None
            axes.step(curve["cost"], curve["best"], where="post", color=colour, label=label)
    axes.set_xlabel("cost paid (1 = one CHGNet single point)")
    axes.set_ylabel("best formation energy (eV/atom)")
    axes.set_title(f"Default crystal campaign, {seeds} seeds", loc="left")
    axes.grid(alpha=0.3)
    axes.legend(frameon=False)
    figure.savefig(path, dpi=150)


def main() -> None:
    """Run both methods over the seeds and print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--figure", type=Path)
    options = parser.parse_args()
    rows = []
    for seed in range(options.seeds):
        for config in (ours(seed), random_at_target(seed)):
            rows.append(run(config))
            print(f"{config['name']}: {rows[-1]}", flush=True)
    print(table(sorted(rows, key=lambda row: (row["method"], row["seed"]))))
    if options.figure:
        draw(options.seeds, options.figure)


if __name__ == "__main__":
    main()
