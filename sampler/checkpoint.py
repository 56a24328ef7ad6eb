"""Files that hold a sampler, written whole or not at all, and read without running what they say."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import torch

_FORMAT = 2


def write(path: str | os.PathLike[str], content: dict[str, Any]) -> None:
    """Write tensors, numbers and containers of them; on disk before it returns."""
    path = Path(path)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    with temporary.open("wb") as file:
        torch.save({"format": _FORMAT, **content}, file)
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)


def read(
    path: str | os.PathLike[str], shape: dict[str, Any], device: torch.device
) -> dict[str, Any]:
    """What `write` wrote. ValueError when it is not of this `shape`, or of another version."""
    content: dict[str, Any] = torch.load(path, weights_only=True, map_location=device)
    if content.get("format") != _FORMAT:
        raise ValueError(
            f"{path}: written by another version of Motherlode (format {content.get('format')}, "
            f"this one reads {_FORMAT}); train anew"
        )
    if content.get("shape") != shape:
        raise ValueError(
            f"{path}: made for {content.get('shape')}, but this sampler is {shape}; "
            "use the same space and hidden widths as when it was saved"
        )
    return content
