"""Candidates drawn from a campaign's trained sampler, with or without a restriction."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd
import yaml

from pipeline.assemble import Parts, assemble
from pipeline.config import ConfigError, parse
from pipeline.ledger import Ledger


def draw(directory: Path, n: int, where: Mapping[str, Any], seed: int) -> pd.DataFrame:
    """N candidates of the last round's sampler as a table: candidate, then its description.

    Reads only, also while the campaign runs. ConfigError where there is no trained sampler, and
    for a restriction that the space does not know or that nothing satisfies.
    """
    parts = _parts(directory)
    path = _last_sampler(directory)
    sampler = parts.new_sampler(0)
    try:
        sampler.load(path)
        states = sampler.sample(n, seed=seed, where=where or None)
    except ValueError as error:
        raise ConfigError([str(error)]) from None
    if parts.pairs is not None:
        states, _ = parts.pairs.split(states)
    table = pd.DataFrame({"candidate": parts.environment.keys(states)})
    described = pd.DataFrame(parts.environment.describe(states)).drop(
        columns="candidate", errors="ignore"
    )
    return table.join(described)


def _parts(directory: Path) -> Parts:
    ledger = Ledger.read(directory / "ledger.sqlite")
    about = ledger.about()
    ledger.close()
    return assemble(parse(yaml.safe_load(about["config"])), Path(about["folder"]))


def _last_sampler(directory: Path) -> Path:
    found = sorted(directory.glob("rounds/*/sampler.pt"))
    if not found:
        raise ConfigError(
            [
                f"{directory}: no round has trained a sampler yet (expected rounds/*/sampler.pt); "
                "run the campaign past its initial design first"
            ]
        )
    return found[-1]
