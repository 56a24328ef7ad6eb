"""Files that hold a sampler, written whole or not at all; reading one runs nothing of it."""

from __future__ import annotations

import os
import pickle
from pathlib import Path
from typing import Any

import torch

_FORMAT = 2


def write(path: str | os.PathLike[str], content: dict[str, Any]) -> None:
    """Write tensors, numbers and containers of them; on disk before it returns."""
    path = Path(path)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with temporary.open("wb") as file:
            torch.save({"format": _FORMAT, **content}, file)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def read(
    path: str | os.PathLike[str], shape: dict[str, Any], device: torch.device
) -> dict[str, Any]:
    """What `write` wrote.

    ValueError when it is not of this `shape`, of another version, damaged, or no such file at all.
    """
    with Path(path).open("rb") as file:
        try:
            content = torch.load(file, weights_only=True, map_location=device)
        except (RuntimeError, OSError, EOFError, pickle.UnpicklingError) as error:
            raise ValueError(
                f"{path}: expected a file that `save` wrote, but it is damaged or holds other "
                f"things than tensors and numbers; train anew ({type(error).__name__}: {error})"
            ) from error
    found = content.get("format") if isinstance(content, dict) else None
    if found != _FORMAT:
        raise ValueError(
            f"{path}: written by another version of Motherlode (format {found}, "
            f"this one reads {_FORMAT}); train anew"
        )
    if content.get("shape") != shape:
        raise ValueError(
            f"{path}: made for {content.get('shape')}, but this sampler is {shape}; "
            "use the same kind of sampler, space and hidden widths as when it was saved"
        )
    return dict(content)
