"""The result table of the crystal benchmark, as Markdown."""

from __future__ import annotations

import statistics
from typing import Any

Result = dict[str, Any]
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
        lines += _validity(_GOALS[name], told)
    if "diversity" in results:
        lines += _diversity(results["diversity"], results["validity"]["formation_energy"])
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
    """Median, and the range of more than one."""
    middle = f"{statistics.median(values):,.{digits}f}"
    if len(values) == 1:
        return middle
    return f"{middle} ({min(values):,.{digits}f} to {max(values):,.{digits}f})"


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


def _validity(title: str, told: Result) -> list[str]:
    n = f"{told['n']:,}"
    passed = told["passed"]
    checks = "; ".join(f"{name} {100 * share:.2f} %" for name, share in passed.items())
    plain, diverse = told["top"]["plain"], told["top"]["diverse"]
    counts = [told[key] for key in ("space_groups", "elements", "crystal_lattice_systems",
                                    "point_symmetries")]  # fmt: skip
    top = [diverse[key] for key in ("space_groups", "elements", "crystal_lattice_systems",
                                    "point_symmetries")]  # fmt: skip
    is_as_good = diverse["mean_log_reward"] >= plain["mean_log_reward"] - 1e-9
    return [
        _row(f"{title}: valid of {n} ({told['n_guessed']:,} by oxi_state_guesses)", "100 %",
             checks, min(passed.values()) == 1.0),
        _row(f"{title}: unique of {n}", "≥ 99.9 %", f"{100 * told['unique']:.2f} %",
             told["unique"] >= 0.999),
        _row(f"{title}: space groups / elements / lattice systems / point symmetries of {n}",
             "≥ 100 / 22 / 8 / 5", " / ".join(map(str, counts)),
             counts[0] >= 100 and counts[1:] == [22, 8, 5]),
        _row(f"{title}: the same in the diverse top 100", "≥ 25 / ≥ 15 / ≥ 6 / 5",
             f"{' / '.join(map(str, top))}, of {diverse['n_kinds_of']} that keep the rule",
             diverse["n_kinds_of"] == 100
             and all(a >= b for a, b in zip(top, (25, 15, 6, 5), strict=True))),
        _row(f"{title}: its mean value (log R), and that of the plain top 100",
             "no lower reward",
             f"{diverse['mean_value']:.3f} ({diverse['mean_log_reward']:.2f}) and "
             f"{plain['mean_value']:.3f} ({plain['mean_log_reward']:.2f}), which has "
             f"{plain['space_groups']} groups, {plain['elements']} elements",
             is_as_good),
        _row(f"{title}: mean value of all samples, of random crystals", "",
             f"{told['mean_value']:.3f}, {told['mean_value_random']:.3f}"),
    ]  # fmt: skip


def _diversity(told: Result, ours: Result) -> list[str]:
    run, top, samples = told["runs"][0], told["top"], told["samples"]
    diverse = ours["top"]["diverse"]["mean_log_reward"]
    keys = ("space_groups", "elements", "crystal_lattice_systems", "point_symmetries")
    return [
        _row("the same trained on R alone: its plain top 100, mean log R", "no higher than ours",
             f"{top['mean_log_reward']:.2f} against our diverse {diverse:.2f}; "
             f"{' / '.join(str(top[key]) for key in keys)}, all samples "
             f"{' / '.join(str(samples[key]) for key in keys)}",
             diverse >= top["mean_log_reward"]),
        _row("the same trained on R alone: log p against log R, Spearman", "≥ 0.9",
             f"{run['log_p']['all']['target']['spearman']:.3f}"),
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
             f"{told['log_p_mixed']['spearman']:.3f}; {100 * told['unique']:.1f} % unique"
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
