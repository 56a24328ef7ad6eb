"""Finding a class or function by its kind: a registered name, or `package.module:Name`."""

from __future__ import annotations

import difflib
import importlib
from collections.abc import Mapping
from typing import Any


def resolve(kind: str, registry: Mapping[str, str], what: str) -> Any:
    """The object that `kind` names, imported now; `what` is the word for it in messages.

    ValueError when the kind is not registered (with the nearest name), or when a
    `package.module:Name` cannot be imported.
    """
    target = registry.get(kind, kind)
    if ":" not in target:
        raise ValueError(f"unknown {what} {kind!r}{_suggestion(kind, registry)}")
    module_name, _, name = target.partition(":")
    try:
        return getattr(importlib.import_module(module_name), name)
    except (ImportError, AttributeError) as error:
        raise ValueError(f"{what} {kind!r} cannot be imported: {error}") from error


def _suggestion(kind: str, registry: Mapping[str, str]) -> str:
    close = difflib.get_close_matches(kind, registry, n=1, cutoff=0.5)
    if close:
        return f"; did you mean {close[0]!r}?"
    return f"; expected one of {', '.join(sorted(registry))}, or 'package.module:Name'"
