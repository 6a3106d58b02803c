"""Finds passes by name: built-in ones and those of installed plugins, loaded the same way.

A distribution offers passes through one entry point in the group `graphopt.passes`, which
points at a tuple. Each item is a `Pass` subclass, an `onnx_ir.passes` pass (class or
instance), or a function that takes an `ir.Model` and changes it in place.

A pass spec is a name with options, `fold-constants{limit=4096}`, or `module:attribute` for
something importable that no entry point lists.
"""

from __future__ import annotations

import dataclasses
import difflib
import functools
import importlib
import inspect
import re
import types
import typing
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from graphopt.entry_points import offered
from graphopt.errors import UsageError, reason_of
from graphopt.graph import ir, replace_content
from graphopt.plugin import Journal, Pass, Promise

GROUP = "graphopt.passes"

PassLike = str | Pass | type[Pass] | Callable[[ir.Model], Any]
"""What can stand for a pass in Python: a spec, a pass, an onnx_ir pass, or a function."""


@dataclass(frozen=True, slots=True)
class Option:
    """One option of a pass, as the command line and the documentation show it.

    Attributes:
        required: whether it has no default, so that `default` means nothing.
    """

    name: str
    type_name: str
    default: Any
    help: str
    required: bool = False


@dataclass(frozen=True, slots=True)
class PassInfo:
    """A pass as the catalog lists it.

    Attributes:
        source: where it comes from, `module.Class`, to tell two of one name apart.
        distribution: the installed distribution that offers it.
        summary: the first line of its docstring.
        description: the docstring of the file that it stands in.
    """

    name: str
    promise: Promise
    source: str
    distribution: str
    summary: str
    description: str
    options: tuple[Option, ...]
    make: Callable[..., Pass]


@functools.cache
def passes() -> dict[str, PassInfo]:
    """All installed passes by name, in order of name.

    A plugin that cannot be imported is logged as a warning, and its passes are missing: those
    of others go on working.

    Raises:
        UsageError: two passes have one name.
    """
    found: dict[str, PassInfo] = {}
    for offer in offered(GROUP):
        info = describe(offer.item, offer.distribution)
        other = found.get(info.name)
        if other is not None and other.source != info.source:
            raise UsageError(
                f"two passes are named '{info.name}': {other.source} ({other.distribution}) "
                f"and {info.source} ({offer.distribution}); uninstall one"
            )
        found[info.name] = info
    return dict(sorted(found.items()))


def describe(item: PassLike | Any, distribution: str = "") -> PassInfo:
    """Everything the catalog knows about a pass.

    Raises:
        UsageError: `item` is nothing that can run as a pass.
    """
    if isinstance(item, Pass):
        wrapped = item
        return dataclasses.replace(describe(type(item), distribution), make=lambda: wrapped)
    if isinstance(item, type) and issubclass(item, Pass):
        return PassInfo(
            name=item.name,
            promise=item.promise,
            source=f"{item.__module__}.{item.__qualname__}",
            distribution=distribution,
            summary=_first_line(item.__doc__),
            description=inspect.getdoc(inspect.getmodule(item)) or "",
            options=tuple(_options(item)),
            make=item,
        )
    adapted = _adapt(item)
    return PassInfo(
        name=adapted.label,
        promise=adapted.promise,
        source=adapted.source,
        distribution=distribution,
        summary=_first_line(getattr(item, "__doc__", "")),
        description=inspect.getdoc(item) or "",
        options=(),
        make=lambda: adapted,
    )


def resolve(item: PassLike | Any) -> Pass:
    """Turn a spec, or anything that can run as a pass, into a pass.

    Raises:
        UsageError: no such pass, no such option, or a value of the wrong type; the message
            names the nearest known one.
    """
    if not isinstance(item, str):
        return describe(item).make()
    name, options = _parse_spec(item)
    info = _imported(name) if ":" in name else passes().get(name)
    if info is None:
        raise UsageError(f"there is no pass named '{name}'{_did_you_mean(name, passes())}")
    return _construct(info, options)


def split_specs(text: str) -> list[str]:
    """Split `a,b{x=1,y=2},c` at the commas that stand outside braces."""
    parts = [part.strip() for part in re.split(r",(?![^{]*\})", text)]
    return [part for part in parts if part]


def spec_of(item: Pass) -> str:
    """The spec that makes this pass: its name, and the options that differ from the defaults."""
    changed = [
        f"{field.name}={_spell(getattr(item, field.name))}"
        for field in dataclasses.fields(item)
        if field.init and field.repr and getattr(item, field.name) != _default(field)
    ]
    return f"{item.name}{{{','.join(changed)}}}" if changed else item.name


def told_apart(items: Sequence[Pass]) -> tuple[Pass, ...]:
    """The passes, with numbers behind the names of different functions that are named alike.

    Reports and bisection know a pass by its spec.

    Raises:
        UsageError: two different passes that are no functions have one spec.
    """
    known: dict[str, Pass] = {}
    distinct: list[Pass] = []
    for item in items:
        named, number = item, 2
        while known.setdefault(spec_of(named), named) != named:
            if not isinstance(item, _Adapted):
                raise UsageError(f"two different passes are named '{item.name}'; rename one")
            named = dataclasses.replace(item, label=f"{item.label}-{number}")
            number += 1
        distinct.append(named)
    return tuple(distinct)


@dataclass(frozen=True)
class _Adapted(Pass):
    """An onnx_ir pass or a plain function, run as a pass."""

    call: Callable[[ir.Model], Any] = dataclasses.field(repr=False)
    label: str = dataclasses.field(repr=False)
    source: str = dataclasses.field(repr=False)

    @property
    def name(self) -> str:  # type: ignore[override]
        return self.label

    def run(self, model: ir.Model, journal: Journal) -> None:
        if not journal.permits(self.label):
            return
        result = self.call(model)
        returned = getattr(result, "model", result)
        if isinstance(returned, ir.Model) and returned is not model:
            replace_content(model, returned)
        if getattr(result, "modified", True):
            journal.record(self.label, "ran")


def _adapt(item: Any) -> _Adapted:
    if isinstance(item, type) and issubclass(item, ir.passes.PassBase):
        item = item()
    if isinstance(item, ir.passes.PassBase):
        kind = type(item)
        return _Adapted(item, _kebab(kind.__name__), f"{kind.__module__}.{kind.__qualname__}")
    if callable(item) and not isinstance(item, type):
        name = getattr(item, "__name__", type(item).__name__)
        return _Adapted(item, _kebab(name), f"{getattr(item, '__module__', '')}.{name}")
    raise UsageError(
        f"{item!r} cannot run as a pass: give a name, a Pass, an onnx_ir pass, "
        "or a function that takes an ir.Model"
    )


def _imported(path: str) -> PassInfo:
    module_name, _, attribute = path.partition(":")
    try:
        module = importlib.import_module(module_name)
    except Exception as error:
        raise UsageError(f"cannot import '{module_name}': {reason_of(error)}") from error
    if not hasattr(module, attribute):
        known = [name for name in vars(module) if not name.startswith("_")]
        raise UsageError(f"'{module_name}' has no '{attribute}'{_did_you_mean(attribute, known)}")
    return describe(getattr(module, attribute))


def _parse_spec(spec: str) -> tuple[str, dict[str, str]]:
    matched = re.fullmatch(r"\s*([^\s{}]+)\s*(?:\{(.*)\})?\s*", spec)
    if matched is None:
        raise UsageError(f"'{spec}' is no pass spec; write name or name{{option=value,...}}")
    options: dict[str, str] = {}
    for part in filter(None, (part.strip() for part in (matched[2] or "").split(","))):
        key, equals, value = part.partition("=")
        if not equals:
            raise UsageError(f"'{part}' in '{spec}' is no option; write option=value")
        if key.strip().replace("-", "_") in options:
            raise UsageError(f"'{key.strip()}' stands twice in '{spec}'; write it once")
        options[key.strip().replace("-", "_")] = value.strip()
    return matched[1], options


def _construct(info: PassInfo, options: dict[str, str]) -> Pass:
    known = {option.name for option in info.options}
    values: dict[str, Any] = {}
    for key, text in options.items():
        if key not in known:
            has = f"it has {', '.join(sorted(known))}" if known else "it has none"
            raise UsageError(
                f"{info.name} has no option '{key}'{_did_you_mean(key, known) or f'; {has}'}"
            )
        values[key] = _convert(info, key, text)
    missing = [item.name for item in info.options if item.required and item.name not in values]
    if missing:
        given = ",".join(f"{name}=..." for name in missing)
        raise UsageError(f"{info.name} needs options that have no default: {info.name}{{{given}}}")
    try:
        return info.make(**values)
    except ValueError as error:
        raise UsageError(f"{info.name}: {reason_of(error)}") from error


def _convert(info: PassInfo, key: str, text: str) -> Any:
    kind = _types(typing.cast("type[Pass]", info.make))[key]
    choices = typing.get_args(kind) if isinstance(kind, types.UnionType) else (kind,)
    if text.lower() == "none" and type(None) in choices:
        return None
    for choice in choices:
        try:
            if choice is bool:
                return {"true": True, "1": True, "false": False, "0": False}[text.lower()]
            if choice is int:
                return parse_size(text)
            if choice is float:
                return float(text)
            if choice is str:
                return text
            if choice is not type(None):
                return choice(text)
        except (KeyError, ValueError, TypeError):
            continue
    names = " or ".join(getattr(choice, "__name__", str(choice)) for choice in choices)
    raise UsageError(f"{info.name}: '{key}' must be {names}, not '{text}'")


_UNITS = {"": 1, "KB": 1 << 10, "MB": 1 << 20, "GB": 1 << 30, "TB": 1 << 40}


def parse_size(text: str) -> int:
    """A whole number, optionally with a unit of bytes: `1MB` is 1,048,576.

    Raises:
        ValueError: the text is neither.
    """
    matched = re.fullmatch(r"\s*([+-]?\d+)\s*([KMGT]?B?)\s*", text, re.IGNORECASE)
    if matched is None:
        raise ValueError(f"'{text}' is no whole number; write 4096, 64KB or 1MB")
    unit = matched[2].upper()
    if unit and not unit.endswith("B"):
        unit += "B"
    return int(matched[1]) * _UNITS["" if unit == "B" else unit]


def _options(kind: type[Pass]) -> Sequence[Option]:
    if not dataclasses.fields(kind):
        return []
    hints = _types(kind)
    return [
        Option(
            field.name,
            getattr(hints[field.name], "__name__", str(hints[field.name])),
            None if default is dataclasses.MISSING else default,
            field.metadata.get("help", ""),
            required=default is dataclasses.MISSING,
        )
        for field in dataclasses.fields(kind)
        if field.init
        for default in (_default(field),)
    ]


def _default(field: dataclasses.Field[Any]) -> Any:
    """What the field is where nothing is given; MISSING if something has to be."""
    if field.default_factory is not dataclasses.MISSING:
        return field.default_factory()
    return field.default


def _types(kind: type[Pass]) -> dict[str, Any]:
    return typing.get_type_hints(kind)


def _spell(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) or value is None else str(value)


def _kebab(name: str) -> str:
    name = re.sub(r"Pass$", "", name)
    return re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "-", name).replace("_", "-").strip("-").lower()


def _first_line(text: str | None) -> str:
    return (text or "").strip().split("\n", 1)[0]


def _did_you_mean(name: str, known: typing.Iterable[str]) -> str:
    near = difflib.get_close_matches(name, list(known), n=1)
    return f"; did you mean '{near[0]}'?" if near else ""
