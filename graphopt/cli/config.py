"""graphopt.toml: everything that a flag can say, under the long name of the flag.

    [optimize]
    level = 2
    skip = ["fuse-conv-batchnorm"]
    input-shape = ["x:1,3,224,224"]

Values are spelled as on the command line; a flag wins over the file. The file is read only
where --config names it: what a command does must not hang on the folder it is started in.
"""

from __future__ import annotations

import difflib
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import click
from click.core import ParameterSource

from graphopt.cli.options import Decorated, together
from graphopt.errors import UsageError

NOT_CONFIGURABLE = frozenset({"config", "print_config", "help"})
"""Flags about the config file itself."""


def key_of(option: click.Option) -> str:
    """The option's key in a config file: its first long name."""
    names = [name for name in option.opts if name.startswith("--")]
    return names[0].removeprefix("--") if names else str(option.name)


def configurable(command: click.Command) -> dict[str, click.Option]:
    """The options of a command that a config file may set, by key."""
    return {
        key_of(option): option
        for option in command.params
        if isinstance(option, click.Option) and option.name not in NOT_CONFIGURABLE
    }


def read_config(context: click.Context, _: click.Parameter, path: str | None) -> str | None:
    """Make the file's values the defaults of the command that is being parsed.

    Raises:
        UsageError: the file cannot be read, or holds something that no flag is named after.
    """
    if path is None:
        return None
    import tomllib

    section = str(context.info_name)
    try:
        document = tomllib.loads(Path(path).read_text(encoding="utf-8"))
    except OSError as error:
        raise UsageError(f"cannot read the config '{path}': {error.strerror}") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise UsageError(f"the config '{path}' is not TOML: {error}") from error
    _reject_unknown(document, [section], f"in the config '{path}'; it may have")
    values = document.get(section, {})
    if not isinstance(values, dict):
        raise UsageError(f"'{section}' in the config '{path}' must be a table, [{section}]")
    options = configurable(context.command)
    _reject_unknown(values, list(options), f"in [{section}] of the config '{path}'; it may have")
    context.default_map = {
        str(options[key].name): _value(options[key], key, value, path)
        for key, value in values.items()
    }
    return path


def _reject_unknown(found: Mapping[str, Any], known: list[str], where: str) -> None:
    for key in found:
        if key in known:
            continue
        near = difflib.get_close_matches(key, known, n=1)
        hint = f"; did you mean '{near[0]}'?" if near else ""
        raise UsageError(f"unknown key '{key}' {where} {', '.join(known)}{hint}")


def _value(option: click.Option, key: str, value: Any, path: str) -> Any:
    wrong = UsageError(f"'{key}' in the config '{path}' cannot be {value!r}")
    if option.is_flag and not option.count:
        if not isinstance(value, bool):
            raise wrong
        return value
    if option.multiple:
        texts = value if isinstance(value, list) else [value]
        if not all(isinstance(text, str) for text in texts):
            raise wrong
        return texts
    if isinstance(value, list) and all(isinstance(text, str) for text in value):
        return ",".join(value)
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        raise wrong
    return value


def write_config(context: click.Context, values: Mapping[str, Any]) -> str:
    """The config file that is equivalent to the command being run, with these values."""
    lines = [f"[{context.info_name}]"]
    for key, option in configurable(context.command).items():
        source = context.get_parameter_source(str(option.name))
        if source in (None, ParameterSource.DEFAULT):
            continue
        name = str(option.name)
        # How to talk is not among the values: it went into the invocation.
        value = values.get(name, getattr(context.obj, name, None))
        if value is not None and value != ():
            lines.append(f"{key} = {_spell(value)}")
    return "\n".join(lines)


def _spell(value: Any) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, int | float):
        return repr(value)
    if isinstance(value, list | tuple):
        return f"[{', '.join(map(_spell, value))}]"
    # A TOML string is a JSON string, but for DEL, which it wants escaped.
    return json.dumps(str(value), ensure_ascii=False).replace("\x7f", "\\u007f")


def config_options(name: str) -> Callable[[Decorated], Decorated]:
    """Add the flags that read the flags of a command from a file, and print them as one."""
    return together(
        click.option(
            "--config",
            is_eager=True,
            expose_value=False,
            callback=read_config,
            metavar="FILE.toml",
            help=f"Read flags from [{name}] in this file; flags given here win.",
        ),
        click.option(
            "--print-config",
            is_flag=True,
            help="Print the config file that equals this command; stop.",
        ),
    )
