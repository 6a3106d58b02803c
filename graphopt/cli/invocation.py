"""Runs a command so that whatever happens becomes one line and the right exit code."""

from __future__ import annotations

import errno
import json
import os
import sys
import traceback
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any, TypeVar

import click

from graphopt.errors import GraphoptError, UsageError

INTERRUPTED = 130
"""What a shell reports for a program that Ctrl-C ended."""

Decorated = TypeVar("Decorated", bound=Callable[..., Any])


@dataclass
class Invocation:
    """How one command was asked to talk.

    Attributes:
        verbose: how often -v was given.
        quiet: print nothing but errors.
        json: print exactly one JSON object on stdout, and nothing else there.
        document: that object, once there is one.
    """

    verbose: int = 0
    quiet: bool = False
    json: bool = False
    document: dict[str, Any] | None = None


def speaking_options(command: Decorated) -> Decorated:
    """Add -q, -v and --json, which fill the `Invocation` that the command is passed."""
    for option in reversed(
        (
            click.option(
                "--json",
                is_flag=True,
                is_eager=True,
                expose_value=False,
                callback=_set_json,
                help="Print one JSON object on stdout and nothing else there.",
            ),
            click.option(
                "-q",
                "--quiet",
                is_flag=True,
                is_eager=True,
                expose_value=False,
                callback=_set_quiet,
                help="Print nothing but errors.",
            ),
            click.option(
                "-v",
                "--verbose",
                count=True,
                is_eager=True,
                expose_value=False,
                callback=_set_verbosity,
                help="Say more: -v what was declined, -vv every rewrite, and tracebacks.",
            ),
        )
    ):
        command = option(command)
    return command


def _set_json(context: click.Context, _: click.Parameter, value: bool) -> bool:
    context.ensure_object(Invocation).json = value
    return value


def _set_quiet(context: click.Context, _: click.Parameter, value: bool) -> bool:
    context.ensure_object(Invocation).quiet = value
    return value


def _set_verbosity(context: click.Context, _: click.Parameter, value: int) -> int:
    context.ensure_object(Invocation).verbose = value
    return value


def run(commands: click.Command, arguments: Sequence[str]) -> int:
    """Run the command line and return its exit code; errors are told on stderr."""
    for stream in (sys.stdout, sys.stderr):
        # A tensor's name may hold what the terminal's encoding cannot say.
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")
    # A command line that cannot be parsed never gets as far as its flags' callbacks.
    invocation = Invocation(verbose=2 if "-vv" in arguments else 0, json="--json" in arguments)
    try:
        with warnings.catch_warnings():
            if invocation.verbose < 2 and not sys.warnoptions:
                # What numpy says of an overflow in a constant is for developers.
                warnings.simplefilter("ignore")
            with _stdout_kept_clean(invocation):
                code = commands.main(
                    args=list(arguments),
                    prog_name="graphopt",
                    obj=invocation,
                    standalone_mode=False,
                )
        if invocation.document is not None:
            _print_document(invocation.document)
        if sys.stdout is not None:
            sys.stdout.flush()
    except click.exceptions.NoArgsIsHelpError as error:
        click.echo(error.format_message(), err=True)
        return UsageError.exit_code
    except click.ClickException as error:
        return _fail(invocation, error, _usage_message(error), UsageError.exit_code)
    except (click.Abort, KeyboardInterrupt) as error:
        return _fail(invocation, error, "interrupted", INTERRUPTED)
    except GraphoptError as error:
        return _fail(invocation, error, str(error), error.exit_code)
    except BrokenPipeError:
        _give_up_stdout()
        return GraphoptError.exit_code
    except OSError as error:
        if error.errno == errno.ENOSPC:
            _give_up_stdout()
        message = f"the system says: {error}"
        return _fail(invocation, error, message, GraphoptError.exit_code)
    except MemoryError as error:
        message = "there is not enough memory for this model"
        return _fail(invocation, error, message, GraphoptError.exit_code)
    except Exception as error:  # noqa: BLE001 - a user gets a line, never a traceback
        message = (
            f"unexpected {type(error).__name__}: {error}; this is a defect of graphopt: "
            "please report it with the traceback that -vv shows"
        )
        return _fail(invocation, error, message, GraphoptError.exit_code)
    return code if isinstance(code, int) else 0


def _fail(invocation: Invocation, error: BaseException, message: str, code: int) -> int:
    message = one_line(message)
    if invocation.verbose > 1:
        traceback.print_exception(error, file=sys.stderr)
    print(f"error: {message}", file=sys.stderr)  # noqa: T201 - the one place for it
    if invocation.json:
        _print_document({"ok": False, "error": message, "exit_code": code})
    return code


@contextmanager
def _stdout_kept_clean(invocation: Invocation) -> Iterator[None]:
    """Under --json, what passes, data functions and libraries print goes to stderr."""
    if not invocation.json or sys.stdout is None or sys.stderr is None:
        yield
        return
    stdout, kept = sys.stdout, None
    with suppress(OSError, ValueError):
        if stdout.fileno() == 1 and sys.stderr.fileno() == 2:
            stdout.flush()
            kept = os.dup(1)
            os.dup2(2, 1)
    sys.stdout = sys.stderr
    try:
        yield
    finally:
        sys.stdout = stdout
        if kept is not None:
            os.dup2(kept, 1)
            os.close(kept)


def _give_up_stdout() -> None:
    """Send what is still buffered nowhere; else Python complains again when it exits."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _usage_message(error: click.ClickException) -> str:
    message = error.format_message().rstrip(".")
    context = getattr(error, "ctx", None)
    return f"{message}; see `{context.command_path} --help`" if context is not None else message


def one_line(text: str) -> str:
    """`text` on one line, with control characters (names come from files) made visible."""
    return visible(" ".join(text.split()))


def visible(text: str) -> str:
    """`text` with every character that a terminal might obey spelled as an escape."""
    return "".join(
        char if char.isprintable() else char.encode("unicode_escape").decode("ascii")
        for char in text
    )


def print_json(data: dict[str, Any]) -> None:
    """Make `data` the one JSON object that the command prints when it ends."""
    click.get_current_context().ensure_object(Invocation).document = data


def _print_document(data: dict[str, Any]) -> None:
    # ASCII, so that no encoding can spoil it.
    click.echo(json.dumps(data, indent=2, allow_nan=False))
