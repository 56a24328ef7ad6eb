"""The CHGNet potential: loaded once a process, and relaxations with it.

CHGNet: Deng et al., Nature Machine Intelligence 5, 1031 (2023), doi 10.1038/s42256-023-00716-3.
"""

from __future__ import annotations

import contextlib
import io
import math
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from ase.filters import FrechetCellFilter
from ase.optimize import BFGS
from pymatgen.core.structure import Structure
from pymatgen.io.ase import AseAtomsAdaptor
from threadpoolctl import threadpool_limits

if TYPE_CHECKING:
    from ase import Atoms

MODEL_VERSION = "0.3.0"
_WEIGHTS = Path("pretrained", MODEL_VERSION, f"chgnet_{MODEL_VERSION}_e29f68s314m37.pth.tar")

Watch = Callable[[float, float], None]
"""Called with (volume A^3/atom, energy eV/atom) at each step; raises to end a relaxation."""


@dataclass(frozen=True)
class Relaxed:
    """The end of a relaxation; `energy` is the potential's, in eV/atom."""

    structure: Structure
    energy: float
    n_steps: int
    is_converged: bool


@contextlib.contextmanager
def limited_threads(n_threads: int) -> Iterator[None]:
    """Run torch and BLAS on `n_threads` CPU threads inside, and on as many as before outside.

    BLAS too: a cell relaxation takes exponentials of 3 × 3 matrices at each step, and on a busy
    machine a threaded BLAS spends more on its threads than all of CHGNet takes (12.8 against
    3.8 s a crystal, measured).
    """
    before = torch.get_num_threads()
    torch.set_num_threads(n_threads)
    try:
        with threadpool_limits(n_threads, user_api="blas"):
            yield
    finally:
        torch.set_num_threads(before)


@contextlib.contextmanager
def silence() -> Iterator[None]:
    """Swallow what the crystal libraries print and warn about."""
    with contextlib.redirect_stdout(io.StringIO()), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


@cache
def calculator() -> Any:
    """CHGNet 0.3.0 on the CPU as an ASE calculator; atoms without a neighbour are a ValueError.

    Same as `CHGNet.load()`, which unpickles its checkpoint without `weights_only`; here nothing
    but tensors and plain values can come out of the file.
    """
    import chgnet
    from chgnet.model.dynamics import CHGNetCalculator
    from chgnet.model.model import CHGNet

    path = Path(chgnet.__file__).parent / _WEIGHTS
    state = torch.load(path, map_location="cpu", weights_only=True)
    with silence():
        model = CHGNet.from_dict(state["model"], mlp_out_bias=False, version=MODEL_VERSION)
        return CHGNetCalculator(model, use_device="cpu", on_isolated_atoms="error")


def single_point(structure: Structure) -> float:
    """Energy in eV/atom as the potential sees it."""
    with silence():
        prediction = calculator().model.predict_structure(structure, task="e")
    return float(prediction["e"])


def relax(
    structure: Structure, *, relax_cell: bool, fmax: float, max_steps: int, watch: Watch
) -> Relaxed:
    """Relax positions, and the cell too if `relax_cell`, until all forces are below `fmax` eV/A.

    BFGS, with the cell as in `ase.filters.FrechetCellFilter`: over random crystals it needed fewer
    steps than FIRE and ended lower. Symmetry is kept: forces share it. Never more than
    `max_steps` steps.
    """
    with silence():
        atoms = AseAtomsAdaptor.get_atoms(structure, msonable=False)
        atoms.calc = calculator()
        optimizer = BFGS(FrechetCellFilter(atoms) if relax_cell else atoms, logfile=None)
        for has_converged in optimizer.irun(fmax=fmax, steps=max_steps):
            watch(atoms.get_volume() / len(atoms), energy_per_atom(atoms))
            is_converged = bool(has_converged)
        end = AseAtomsAdaptor.get_structure(atoms)
        return Relaxed(end, energy_per_atom(atoms), int(optimizer.nsteps), is_converged)


def energy_per_atom(atoms: Atoms) -> float:
    """Energy in eV/atom of atoms that have a calculator; NaN when it is not a number."""
    energy = float(atoms.get_potential_energy()) / len(atoms)
    return energy if math.isfinite(energy) else math.nan
