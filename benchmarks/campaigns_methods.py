"""Who races: each method is a change of the same campaign, or a loop without a model.

Equal cost: every method has the race's budget, its space, its target oracle and its seed.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path

from benchmarks.campaigns_genetic import genetic
from benchmarks.campaigns_races import Config, Race
from benchmarks.campaigns_result import result
from pipeline import Campaign, metrics
from pipeline.goal import sign
from pipeline.progress import Progress

DATA = Path(__file__).parent / "results" / "data"


def ours(config: Config) -> Config:
    """Everything at its default."""
    return config


def single_fidelity(config: Config) -> Config:
    """The same loop with the target oracle alone; the money of the cheap start goes to it too."""
    target = config["oracles"][-1]
    changed = {"oracles": [target]}
    if "n" in config["initial"]:
        costs = {oracle["fidelity"]: oracle["cost"] for oracle in config["oracles"]}
        money = sum(n * costs[fidelity] for fidelity, n in config["initial"]["n"].items())
        n = max(1, int(money / target["cost"] + 1e-9))
        changed["initial"] = config["initial"] | {"n": {target["fidelity"]: n}}
    return config | changed


def random(config: Config) -> Config:
    """Random candidates at the target until the money is spent: one round, no model."""
    target = config["oracles"][-1]
    n = int(config["budget"]["cost"] / target["cost"] + 1e-9)
    return config | {
        "oracles": [target],
        "initial": {"n": {target["fidelity"]: n}},
        "budget": config["budget"] | {"rounds": 1},
    }


def _fidelity(policy: str) -> Callable[[Config], Config]:
    def change(config: Config) -> Config:
        return config | {"selection": config["selection"] | {"fidelity": policy}}

    return change


def _sampler(kind: str) -> Callable[[Config], Config]:
    def change(config: Config) -> Config:
        return config | {"sampler": {"kind": kind}}

    return change


METHODS: dict[str, Callable[[Config], Config]] = {
    "ours": ours,
    "single_fidelity": single_fidelity,
    "random_fidelity": _fidelity("random"),
    "cheapest": _fidelity("cheapest"),
    "sampler_random": _sampler("random"),
    "sampler_genetic": _sampler("genetic"),
    "sampler_mcmc": _sampler("mcmc"),
    "random": random,
}
"""Campaigns, by the change that makes them."""

ALL_METHODS = (*METHODS, "genetic")
"""With the genetic algorithm on the true oracle, which is no campaign."""


def run(
    race: Race,
    method: str,
    name: str,
    seed: int,
    folder: Path,
    changes: Config,
    stops: bool = False,
) -> Config:
    """Run or finish one entry in `folder`; its queries and seconds as plain data.

    `changes` are merged into the campaign's sections: what is tried out before it is a default.
    With `stops` a campaign ends once its best k have the mean that the race's best case has.
    """
    config = merged(race.make(seed, DATA), changes)
    config |= {"name": name, "seed": seed, "tracking": {"kind": "none"}}
    if method == "genetic":
        return genetic(single_fidelity(config), race.k)
    ceiling = race.ceiling if stops else None
    return _campaign(METHODS[method](config), folder, race.k, ceiling)


def merged(config: Config, changes: Config) -> Config:
    """`config` with the mappings of `changes` laid over its own, section by section."""
    result = dict(config)
    for key, value in changes.items():
        before = result.get(key)
        if isinstance(before, dict) and isinstance(value, dict) and not _is_other(before, value):
            value = merged(before, value)
        result[key] = value
    return result


def _is_other(before: Config, after: Config) -> bool:
    """Whether a section names another kind, which has other options."""
    return "kind" in after and after["kind"] != before.get("kind")


class Clock(Progress):
    """Writes down the seconds of each verb of each round, one line each, in the campaign's folder.

    `seconds` by the clock, and `cpu_seconds` of this process, which others' work does not stretch.
    A line is written when the next verb begins, so a killed run loses only its last one.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.number = 0
        self.open: tuple[str, float, float] | None = None

    def round(self, number: int, rounds: int) -> None:
        """A round begins."""
        self.number = number

    def verb(self, name: str) -> None:
        """A verb begins, and so the one before ends."""
        self._end()
        self.open = (name, time.perf_counter(), time.process_time())

    def recorded(self, number: int) -> None:
        """The round's last verb ends."""
        self._end()

    def _end(self) -> None:
        if self.open is None:
            return
        name, began, cpu_began = self.open
        line = {
            "round": self.number,
            "verb": name,
            "seconds": time.perf_counter() - began,
            "cpu_seconds": time.process_time() - cpu_began,
        }
        with self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(line) + "\n")
        self.open = None


def _campaign(config: Config, folder: Path, k: int, ceiling: float | None) -> Config:
    with Campaign.from_config(config, folder) as campaign:
        campaign.progress = Clock(folder / "seconds.jsonl")
        while not _is_at(ceiling, campaign, k) and campaign.step():
            pass
        frame, parts = campaign.ledger.to_frame(), campaign.parts
    frame = frame.assign(cost=frame["actual_cost"])
    lines = (folder / "seconds.jsonl").read_text(encoding="utf-8").splitlines()
    return result(config, parts, frame, [json.loads(line) for line in lines], k)


def _is_at(ceiling: float | None, campaign: Campaign, k: int) -> bool:
    """Whether the best k paid for at the target have the mean `ceiling`, to 4 decimals."""
    frame = campaign.ledger.to_frame()
    paid = frame[frame["actual_cost"] > 0]
    best = metrics.top_k(paid, campaign.target, campaign.goal, k)["value"]
    if ceiling is None or len(best) < k:
        return False
    return sign(campaign.goal) * (float(best.mean()) - ceiling) >= -5e-5
