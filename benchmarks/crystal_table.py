"""The result table of the crystal benchmark, as Markdown."""

from __future__ import annotations

import statistics
from typing import Any

Result = dict[str, Any]
_KINDS = ("space_groups", "elements", "crystal_lattice_systems", "point_symmetries")
_WANTED = (25, 15, 6, 5)
"""Kinds of these in the top 100."""
_GOALS = {
    "density": "density",
    "formation_energy": "formation-energy proxy",
    "band_gap": "band gap",
}


def table(results: Result) -> str:
    """Everything that has been measured: what, wanted, ours, reached."""
    lines = ["| what | wanted | ours | reached |", "|---|---|---|---|"]
    lines += _speed(results.get("speed", {}))
    for name, title in _GOALS.items():
        if name in results:
            lines += _training(title, results[name]["runs"])
    for name, told in results.get("validity", {}).items():
        lines += _validity(_GOALS[name], told["runs"])
    for name, told in results.get("diversity", {}).items():
        lines += _diversity(_GOALS[name], told["runs"], results["validity"][name]["runs"])
    if "comparison" in results:
        lines += _comparison(results["comparison"])
    for name, told in results.get("where", {}).items():
        lines += _where(name, told)
    if "proxy" in results:
        lines += ["", *_proxy(results["proxy"])]
    return "\n".join(lines)


def _row(what: str, wanted: str, ours: str, reached: bool | None = None) -> str:
    verdict = "" if reached is None else "yes" if reached else "**no**"
    return f"| {what} | {wanted} | {ours} | {verdict} |"


def _spread(values: list[float], digits: int) -> str:
    """Mean, and the sample standard deviation over more than one seed."""
    middle = f"{statistics.fmean(values):,.{digits}f}"
    if len(values) == 1:
        return middle
    return f"{middle} ± {statistics.stdev(values):,.{digits}f}"


def _least(rows: list[Result]) -> list[int]:
    """The fewest kinds of each thing over the seeds."""
    return [min(row[key] for row in rows) for key in _KINDS]


def _speed(told: Result) -> list[str]:
    return [
        _row(f"trajectories per CPU-second in training, {name}", "≥ 800", _spread(rates, 0),
             min(rates) >= 800)
        for name, rates in told.items()
    ]  # fmt: skip


def _training(title: str, runs: list[Result]) -> list[str]:
    walls = [run["wall_s"] / 60 for run in runs]
    cpus = [run["cpu_s"] / 60 for run in runs]
    spearman = [run["log_p"]["all"]["target"]["spearman"] for run in runs]
    pearson = [run["log_p"]["all"]["target"]["pearson"] for run in runs]
    alone = [run["log_p"]["all"]["reward"]["spearman"] for run in runs]
    parts = {
        name: statistics.median(run["log_p"][name]["target"]["spearman"] for run in runs)
        for name in runs[0]["log_p"]
        if name != "all"
    }
    each = ", ".join(f"{name} {value:.2f}" for name, value in parts.items())
    n_stable = sum(run["is_stable"] for run in runs)
    return [
        _row(f"{title}: wall minutes to a stable loss ({len(runs)} seeds)", "≤ 20",
             f"{_spread(walls, 1)}; CPU {_spread(cpus, 1)}; {n_stable} of {len(runs)} stable",
             max(walls) <= 20 and n_stable == len(runs)),
        _row(f"{title}: log p against log R · m, Spearman; Pearson", "≥ 0.9",
             f"{_spread(spearman, 3)}; {_spread(pearson, 3)}", min(spearman) >= 0.9),
        _row(f"{title}: the same by set; all against log R without m", "",
             f"{each}; {_spread(alone, 3)}"),
    ]  # fmt: skip


def _validity(title: str, runs: list[Result]) -> list[str]:
    n = f"{runs[0]['n']:,}"
    passed = {name: min(run["passed"][name] for run in runs) for name in runs[0]["passed"]}
    checks = "; ".join(f"{name} {100 * share:.2f} %" for name, share in passed.items())
    unique = min(run["unique"] for run in runs)
    counts = _least(runs)
    top = _least([run["top"]["diverse"] for run in runs])
    random = statistics.fmean(run["mean_value_random"] for run in runs)
    return [
        _row(f"{title}: valid of {n} ({runs[0]['n_guessed']:,} by oxi_state_guesses)", "100 %",
             checks, min(passed.values()) == 1.0),
        _row(f"{title}: unique of {n}", "≥ 99.9 %", f"{100 * unique:.2f} %", unique >= 0.999),
        _row(f"{title}: space groups / elements / lattice systems / point symmetries of {n}",
             "≥ 100 / 22 / 8 / 5", " / ".join(map(str, counts)),
             counts[0] >= 100 and counts[1:] == [22, 8, 5]),
        _row(f"{title}: the same in the top 100 of enough kinds", "≥ 25 / ≥ 15 / ≥ 6 / 5",
             " / ".join(map(str, top)), all(a >= b for a, b in zip(top, _WANTED, strict=True))),
        _row(f"{title}: mean value of all samples; of random crystals", "",
             f"{_spread([run['mean_value'] for run in runs], 3)}; {random:.3f}"),
    ]  # fmt: skip


def _diversity(title: str, runs: list[Result], ours: list[Result]) -> list[str]:
    """Diverse against plain: R alone draws as many and keeps its best, whatever they are."""
    diverse, own = (
        [run["top"][rule]["mean_log_reward"] for run in ours] for rule in ("diverse", "plain")
    )
    alone = [run["top"]["plain"]["mean_log_reward"] for run in runs]
    price = [a - b for a, b in zip(own, diverse, strict=True)]
    values = [run["top"]["diverse"]["mean_value"] for run in ours]
    kinds = " / ".join(map(str, _least([run["top"]["plain"] for run in runs])))
    pool = " / ".join(map(str, _least([run["samples"] for run in runs])))
    spearman = [run["log_p"]["all"]["target"]["spearman"] for run in runs]
    return [
        _row(f"{title}: mean log R of that top 100; of the plain top 100 without the diversity",
             "no lower",
             f"{_spread(diverse, 4)} (mean value {_spread(values, 3)}); {_spread(alone, 4)} from a "
             f"sampler of R alone, {kinds} ({len(runs)} seeds), all its samples {pool}",
             statistics.fmean(diverse) >= statistics.fmean(alone)),
        _row(f"{title}: the price of the kinds, against the plain top 100 of the same samples", "",
             f"{_spread(price, 4)} of {_spread(own, 4)}"),
        _row(f"{title}: trained on R alone: log p against log R, Spearman", "≥ 0.9",
             _spread(spearman, 3), min(spearman) >= 0.9),
    ]  # fmt: skip


def _comparison(told: Result) -> list[str]:
    sets = told["sets"]
    energy = {name: statistics.median(values["energy"]) for name, values in sets.items()}
    near = {name: values["share_near_gap"] for name, values in sets.items()}
    own = energy["formation_energy sampler"]
    checked = told["chgnet"]
    lines = [
        _row("median formation energy, eV/atom, by our proxy: samples / known / decorated / random",
             "samples lowest",
             " / ".join(f"{energy[n]:.2f}" for n in ("formation_energy sampler", "known",
                                                    "decorated", "random")),
             own < min(energy["known"], energy["decorated"], energy["random"])),
        _row("share of band gaps within 0.5 eV of 1.34 eV, by our model: the same", "samples most",
             " / ".join(f"{100 * near[n]:.0f} %" for n in ("band_gap sampler", "known",
                                                           "decorated", "random")),
             near["band_gap sampler"] > max(near["known"], near["decorated"], near["random"])),
    ]  # fmt: skip
    own_chgnet = statistics.median(checked["chgnet"]) if checked["chgnet"] else float("nan")
    known_chgnet = statistics.median(told["chgnet_known"])
    lines.append(
        _row(
            f"the same by CHGNet itself: {checked['n']} samples, randomly placed, / known crystals",
            "samples lower",
            f"{own_chgnet:.2f} / {known_chgnet:.2f} eV/atom; {checked['failed']} samples have no "
            f"room for their atoms or leave CHGNet's window; the proxy says "
            f"{statistics.median(checked['proxy']):.2f} of the others",
            own_chgnet < known_chgnet,
        )
    )
    return lines


def _where(name: str, told: Result) -> list[str]:
    ours, random = statistics.fmean(told["value"]), statistics.fmean(told["value_random"])
    return [
        _row(f"where {name}: obey of {told['n']:,}; mean energy, random ones; Spearman, mixed",
             "100 %; lower; ",
             f"{100 * told['obey']:.2f} %; {ours:.2f}, {random:.2f} eV/atom; "
             f"{told['log_p_mixed']['spearman']:.3f}; {100 * told['unique']:.1f} % unique; "
             f"{100 * told['effective_share']:.0f} % effective"
             + (f"; {len(told['warnings'])} warnings" if told["warnings"] else ""),
             told["obey"] == 1.0 and ours < random),
    ]  # fmt: skip


def _proxy(told: Result) -> list[str]:
    """Errors of the proxy on held-out crystals, a row a source."""
    lines = [
        "| proxy, held-out | n | MAE, eV/atom | Spearman | MAE below 0 |",
        "|---|---|---|---|---|",
    ]
    for source, row in told["rounds"][-1].items():
        if isinstance(row, dict):
            lines.append(f"| {source} | {row['n']} | {row['mae']:.2f} | {row['spearman']:.2f} | "
                         f"{row['mae_below_0']:.2f} ({row['n_below_0']}) |")  # fmt: skip
    return lines
