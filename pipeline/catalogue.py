"""The kinds that a configuration can name, with their options, read from the classes."""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from pipeline.assemble import INJECTED, KINDS
from pipeline.plugins import find_class


@dataclass(frozen=True)
class Entry:
    """One kind: the first line of its docstring, and `name: type = default` for each option."""

    kind: str
    summary: str
    options: Sequence[str]


def describe_kinds(section: str | None = None) -> dict[str, list[Entry]]:
    """Entries by section; all sections when none is named."""
    sections = [section] if section else list(KINDS)
    return {
        name: [_entry(kind, target, name) for kind, target in sorted(KINDS[name].items())]
        for name in sections
    }


def _entry(kind: str, target: str, section: str) -> Entry:
    if section == "losses":
        module, _, name = target.partition(":")
        loss = getattr(__import__(module, fromlist=[name]), name)
        return Entry(kind, _summary(loss.value), [])
    cls = find_class(kind, KINDS[section])
    parameters = inspect.signature(cls).parameters.values()
    options = [_option(p) for p in parameters if p.name not in INJECTED]
    return Entry(kind, _summary(cls), options)


def _summary(thing: Any) -> str:
    return (inspect.getdoc(thing) or "").partition("\n")[0]


def _option(parameter: inspect.Parameter) -> str:
    annotation = parameter.annotation
    told = annotation if isinstance(annotation, str) else inspect.formatannotation(annotation)
    if parameter.default is inspect.Parameter.empty:
        return f"{parameter.name}: {told}  (required)"
    return f"{parameter.name}: {told} = {parameter.default!r}"
