"""Known crystals: AFLOW's prototypes as pymatgen ships them, and what they look like with others.

Prototypes are measured structures of minerals and compounds. Few of them consist of the reference
set's elements alone, so each is also decorated: its elements are replaced by such of the same
chemical kind, and its volume scaled to what pymatgen's data-mined bond lengths predict (DLS).
"""

from __future__ import annotations

import json
import warnings
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from pymatgen.core.structure import Structure

from sampler.environments.crystal import Crystal

RESULTS = Path(__file__).parent / "results"
_KINDS = (
    ("H",),
    ("Li", "Na", "K", "Rb", "Cs", "Tl", "Ag"),
    ("Mg", "Be", "Ca", "Sr", "Ba", "Zn", "Cd", "Hg", "Pb"),
    ("B", "Al", "Ga", "In", "Sc", "Y", "La", "Ce", "Nd"),
    ("C", "Si", "Ge", "Sn", "Ti", "Zr", "Hf", "Th", "U"),
    ("N", "P", "As", "Sb", "Bi"),
    ("O", "S", "Se", "Te"),
    ("F", "Cl", "Br", "I"),
    ("V", "Mn", "Fe", "Co", "Ni", "Cu", "Cr", "Mo", "W", "Nb", "Ta", "Re", "Ru", "Rh", "Pd", "Pt"),
)


Found = tuple[list[Structure], list[str]]
"""Structures and their keys in the space that they were read into."""


def known_crystals(space: Crystal) -> Found:
    """Prototypes that lie in `space` as they were measured; kept on disk."""
    path = RESULTS / "crystal_known.json"
    return _read(path) if path.exists() else _write(path, _inside(space, _prototypes()))


def decorated_crystals(space: Crystal, n_each: int = 5, seed: int = 0) -> Found:
    """Up to `n_each` decorations of each prototype that lie in `space`, none of a known formula.

    Kept on disk: minutes.
    """
    path = RESULTS / f"crystal_decorated_{n_each}_{seed}.json"
    if path.exists():
        return _read(path)
    known = {each.composition.reduced_formula for each in known_crystals(space)[0]}
    rng = np.random.default_rng(seed)
    structures: list[Structure] = []
    for prototype in _prototypes():
        found, _ = _inside(space, _decorations(prototype, space, 4 * n_each, rng))
        new = [each for each in found if each.composition.reduced_formula not in known]
        structures += new[:n_each]
    return _write(path, _inside(space, iter(structures)))


def _prototypes() -> Iterator[Structure]:
    """AFLOW's prototypes, nearly all measured structures."""
    import pymatgen.analysis.prototypes as library
    from monty.serialization import loadfn

    path = Path(library.__file__).parent / "aflow_prototypes.json.gz"
    for entry in loadfn(path):
        yield entry["snl"].structure


def _decorations(
    prototype: Structure, space: Crystal, n: int, rng: np.random.Generator
) -> Iterator[Structure]:
    """Draw `prototype` with other elements of the same kinds, n times, at a predicted volume."""
    from pymatgen.analysis.structure_prediction.volume_predictor import DLSVolumePredictor

    ours = {element.symbol for element in space.elements}
    symbols = sorted({str(element.symbol) for element in prototype.composition.elements})
    choices = [sorted(ours & set(kind)) for s in symbols for kind in _KINDS if s in kind]
    if not prototype.is_ordered or len(choices) < len(symbols) or len(prototype) > 80:
        return
    tried = set()
    for _ in range(n):
        chosen = tuple(str(rng.choice(options)) for options in choices)
        if len(set(chosen)) < len(chosen) or chosen in tried:
            continue
        tried.add(chosen)
        decorated = prototype.copy()
        decorated.replace_species(dict(zip(symbols, chosen, strict=True)))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            try:
                predictor = DLSVolumePredictor()  # type: ignore[no-untyped-call]
                yield predictor.get_predicted_structure(decorated)
            except (ValueError, KeyError, RuntimeError, ZeroDivisionError):
                continue  # no bond lengths are known for these neighbours


def _inside(space: Crystal, structures: Iterator[Structure]) -> Found:
    """Those that `space` can read, each key once."""
    kept: dict[str, Structure] = {}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for structure in structures:
            try:
                key = space.keys(space.encode([structure]))[0]
            except ValueError:
                continue  # other elements, a group outside the set, more than 16 of an element …
            kept.setdefault(key, structure)
    return list(kept.values()), list(kept)


def _write(path: Path, found: Found) -> Found:
    path.parent.mkdir(exist_ok=True)
    rows = [{"key": key, "structure": s.as_dict()} for s, key in zip(*found, strict=True)]
    path.write_text(json.dumps(rows))
    return found


def _read(path: Path) -> Found:
    rows = json.loads(path.read_text())
    return [Structure.from_dict(row["structure"]) for row in rows], [row["key"] for row in rows]
