"""Find the class behind a `kind`: one of ours by name, or anyone's by "package.module:Class"."""

from __future__ import annotations

import importlib
import importlib.machinery
import inspect
import sys
from collections.abc import Mapping, Sequence
from importlib.abc import MetaPathFinder
from pathlib import Path
from types import ModuleType
from typing import Annotated, Any, cast

from pydantic import BaseModel, BeforeValidator, ConfigDict, ValidationError, create_model

from pipeline.config import did_you_mean, no_bool, problem_lines


class _BesideConfig(MetaPathFinder):
    """Finds modules in the configuration's folder, asked last of all.

    It stands at the end of `sys.meta_path`, so that a user's `sampler.py` or `random.py` never
    shadows ours, the standard library's or an installed package, not even in an editable install
    (whose own finder comes after `sys.path`).
    """

    def __init__(self, folder: Path) -> None:
        self.folder = str(folder)

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        """The module of that name in the folder, if it is there."""
        if path is not None:  # a submodule: its package's own path has been searched already
            return None
        return importlib.machinery.PathFinder.find_spec(fullname, [self.folder])


def allow_plugins_from(folder: Path) -> None:
    """Let `kind: "my_module:MyClass"` find `my_module.py` in `folder`."""
    resolved = folder.resolve()
    known = [f for f in sys.meta_path if isinstance(f, _BesideConfig)]
    if not any(finder.folder == str(resolved) for finder in known):
        sys.meta_path.append(_BesideConfig(resolved))


def find_class(kind: str, registry: Mapping[str, str]) -> type[Any]:
    """The class of a kind, or the function that one of ours chooses its class by.

    ValueError: one line that says what to change.
    """
    target = registry.get(kind, kind)
    module_name, colon, class_name = target.partition(":")
    if not colon:
        hint = did_you_mean(kind, registry)
        raise ValueError(f'unknown kind `{kind}`{hint} (your own: "module:Class")')
    module = _import(module_name, target)
    found = getattr(module, class_name, None)
    chooses_class = kind in registry and inspect.isfunction(found)
    if not (inspect.isclass(found) or chooses_class):
        classes = [n for n, c in inspect.getmembers(module, inspect.isclass)]
        where = getattr(module, "__file__", module_name)
        raise ValueError(
            f"`{module_name}` ({where}) has no class `{class_name}`"
            + did_you_mean(class_name, classes)
        )
    return cast("type[Any]", found)  # called alike, a function too


def _import(module_name: str, target: str) -> ModuleType:
    try:
        return importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        if error.name and module_name.split(".")[0] == error.name.split(".")[0]:
            raise ValueError(
                f"cannot import `{target}`: no module `{error.name}` is installed or lies beside "
                "the config; install it or correct the name"
            ) from None
        raise ValueError(
            f"cannot import `{target}`: it needs the module `{error.name}`; install that"
        ) from None
    # A plug-in is someone else's code: whatever it raises on import is their one line to mend.
    except (Exception, SystemExit) as error:
        if isinstance(error.__cause__ or error.__context__, KeyboardInterrupt):
            raise KeyboardInterrupt from None  # C extensions turn Ctrl-C into an ImportError
        reason = f"{type(error).__name__}: {' '.join(str(error).split())}"
        raise ValueError(f"cannot import `{target}`: {reason}") from None


def check_options(
    cls: type[Any], options: Mapping[str, Any], where: str, injected: frozenset[str] = frozenset()
) -> tuple[BaseModel | None, list[str]]:
    """Options against the class's signature: a model with every default, or a line a problem.

    `injected` names the parameters that the pipeline passes and no configuration may set.
    """
    model = options_model(cls, injected)
    try:
        return model.model_validate(dict(options)), []
    except ValidationError as error:
        return None, problem_lines(error, model, prefix=where)


def construct(cls: type[Any], checked: BaseModel, **injected: Any) -> Any:
    """An instance of the class from options that `check_options` passed."""
    values = {name: getattr(checked, name) for name in type(checked).model_fields}
    return cls(**values, **(checked.__pydantic_extra__ or {}), **injected)


def options_model(cls: type[Any], injected: frozenset[str] = frozenset()) -> type[BaseModel]:
    """A pydantic model of the keyword options that a class's constructor takes."""
    fields: dict[str, Any] = {}
    takes_any = False
    for name, parameter in _signature(cls).parameters.items():
        if parameter.kind is inspect.Parameter.VAR_KEYWORD:
            takes_any = True
        elif parameter.kind is not inspect.Parameter.VAR_POSITIONAL and name not in injected:
            fields[name] = _field(parameter)
    config = ConfigDict(extra="allow" if takes_any else "forbid", arbitrary_types_allowed=True)
    return create_model(f"{cls.__name__}Options", __config__=config, **fields)


def _signature(cls: type[Any]) -> inspect.Signature:
    try:
        return inspect.signature(cls, eval_str=True)
    except NameError as error:
        raise ValueError(
            f"the options of `{cls.__name__}` have annotations that cannot be read ({error}); "
            "import what they name at run time, not only for type checking"
        ) from None


def _field(parameter: inspect.Parameter) -> tuple[Any, Any]:
    untyped = parameter.annotation is inspect.Parameter.empty
    annotation: Any = Any if untyped else parameter.annotation
    if annotation in (int, float):
        annotation = Annotated[annotation, BeforeValidator(no_bool)]
    return annotation, ... if parameter.default is inspect.Parameter.empty else parameter.default
