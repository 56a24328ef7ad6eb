"""Oracles of crystals: formation energies by machine-learned potentials."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence
from typing import Any, Literal

from oracles.oracle import Answer, NotRun
from oracles.physical_window import PhysicalWindow, Unphysical
from oracles.references import reference_text


class CHGNetFormationEnergy:
    """Formation energy of a crystal, relaxed or not, with CHGNet 0.3.0 on the CPU.

        formation_energy_per_atom = E(crystal) - sum over elements of x_i E(element i)

    in eV/atom, x_i the atomic fractions, with E(element) of the same potential from
    `chgnet_references.json` (`python -m oracles.make_chgnet_references` makes it anew). No MP2020
    correction is added: the energies CHGNet 0.3.0 was trained on are Materials Project energies
    with `MaterialsProject2020Compatibility` already applied (chgnet's README, "Notes for
    Training", 2), so another one would count it twice.

    A candidate is a pymatgen `Structure`; where other placements are tried, in the space group
    that it was decoded in or that is found (`oracles.placement.with_space_group`). The levels of a
    ladder are

    - `relax="none"`: the energy as placed;
    - `relax="positions"`: of `n_placements` placements (the one given and others in the same cell
      and space group) the lowest, with its positions relaxed;
    - `relax="cell"`: that one, and then positions and cell relaxed together.

    Answers also have `volume_per_atom` (A^3), `n_relax_steps` and `n_placements`, the number of
    placements that were possible. What leaves the physical window (`min_distance_ratio`,
    `min_relaxed_distance_ratio`, `volume_per_atom`, `formation_energy`: see `PhysicalWindow`) or
    has not converged after `max_steps` steps of a relaxation is an `Unphysical` answer. A candidate
    that is outside the window before the potential is asked is `NotRun`.

    Deterministic: the same candidate gives the same bits in any process with the same `threads`.
    """

    properties = ("formation_energy_per_atom", "volume_per_atom", "n_relax_steps", "n_placements")

    def __init__(
        self,
        fidelity: str,
        cost: float,
        relax: Literal["none", "positions", "cell"] = "none",
        n_placements: int = 1,
        max_steps: int = 300,
        fmax: float = 0.1,
        min_distance_ratio: float = 0.45,
        min_relaxed_distance_ratio: float = 0.65,
        volume_per_atom: tuple[float, float] = (5.0, 80.0),
        formation_energy: tuple[float, float] = (-4.8, 10.0),
        threads: int = 1,
    ) -> None:
        if relax not in ("none", "positions", "cell"):
            raise ValueError(f"relax must be none, positions or cell, not {relax!r}")
        for name, number in (
            ("n_placements", n_placements),
            ("max_steps", max_steps),
            ("threads", threads),
        ):
            if number < 1:
                raise ValueError(f"{name} must be at least 1, not {number}")
        if not (math.isfinite(cost) and cost >= 0):
            raise ValueError(f"cost must be a number >= 0, not {cost}")
        if not fmax > 0:
            raise ValueError(f"fmax must be positive (eV/A), not {fmax}")
        self.fidelity = fidelity
        self.cost = cost
        self.relax: Literal["none", "positions", "cell"] = relax
        self.n_placements = n_placements
        self.max_steps = max_steps
        self.fmax = float(fmax)
        self.threads = threads
        self.window = PhysicalWindow(
            float(min_distance_ratio),
            float(min_relaxed_distance_ratio),
            (float(volume_per_atom[0]), float(volume_per_atom[1])),
            (float(formation_energy[0]), float(formation_energy[1])),
        )
        self.version = self._version()

    def query(self, candidates: Sequence[Any]) -> list[Answer]:
        """The properties of each candidate, in order, or why there are none; see the class."""
        return [self._answer(candidate) for candidate in candidates]

    def _answer(self, candidate: Any) -> Answer:
        from pymatgen.core.structure import Structure

        if not isinstance(candidate, Structure):
            return NotRun(f"expected a pymatgen Structure, got {type(candidate).__name__}")
        # chgnet, ase and pyxtal take seconds to import: only those who ask pay.
        from oracles.formation_energy import formation_energy

        try:
            return formation_energy(
                candidate,
                relaxation=self.relax,
                n_placements=self.n_placements,
                max_steps=self.max_steps,
                fmax=self.fmax,
                window=self.window,
                threads=self.threads,
            )
        except (NotRun, Unphysical) as reason:
            return reason
        except Exception as error:
            # A library under us chokes on a crystal nobody thought of: the answer of that row, in
            # one line and of a plain class, which reaches other processes in one piece.
            return RuntimeError(" ".join(f"{type(error).__name__}: {error}".split()))

    def _version(self) -> str:
        # Whatever changes an answer changes the key of the query: another table or other options.
        options = (self.relax, self.n_placements, self.max_steps, self.fmax, self.window)
        digest = hashlib.sha256(f"{options}{reference_text()}".encode()).hexdigest()
        return f"1 chgnet-0.3.0 {digest[:12]}"
