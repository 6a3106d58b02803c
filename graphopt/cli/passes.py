"""`graphopt passes list|show|test`."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any

import click

from graphopt.cli.invocation import Invocation, print_json, speaking_options
from graphopt.errors import EquivalenceError

if TYPE_CHECKING:
    from graphopt.catalog import PassInfo


@click.group(short_help="List, explain and try the installed passes.")
def passes() -> None:
    """List, explain and try the installed passes, built in or from plugins."""


@passes.command("list")
@speaking_options
@click.pass_context
def list_passes(context: click.Context) -> None:
    """List every installed pass."""
    invocation = context.ensure_object(Invocation)

    from graphopt.catalog import passes as installed

    infos = installed().values()
    if invocation.json:
        print_json({"passes": [_as_data(info) for info in infos]})
        return
    if invocation.quiet:
        return
    from graphopt.cli.render import make_console, print_table

    print_table(
        make_console(),
        ("pass", "promise", "from", "what it does"),
        [(info.name, str(info.promise), info.distribution, info.summary) for info in infos],
    )


@passes.command("show")
@click.argument("name")
@speaking_options
@click.pass_context
def show_pass(context: click.Context, name: str) -> None:
    """Explain one pass: what it does, when it declines, its options."""
    invocation = context.ensure_object(Invocation)

    from graphopt.catalog import describe, resolve
    from graphopt.catalog import passes as installed

    info = installed().get(name) or describe(resolve(name))
    if invocation.json:
        print_json(_as_data(info))
        return
    if invocation.quiet:
        return
    from graphopt.cli.render import make_console, print_line, print_table

    console = make_console()
    origin = f", from {info.distribution}" if info.distribution else ""
    print_line(console, f"{info.name} ({info.promise}{origin}; {info.source})", "bold")
    for line in (info.description or info.summary).splitlines():
        print_line(console, line)
    if info.options:
        print_line(console)
        print_table(
            console,
            ("option", "type", "default", "what it does"),
            [
                (
                    option.name,
                    option.type_name,
                    "(required)" if option.required else str(option.default),
                    option.help,
                )
                for option in info.options
            ],
        )


@passes.command("test")
@click.argument("name")
@speaking_options
@click.pass_context
def test_pass(context: click.Context, name: str) -> int:
    """Run a pass on models that trap wrong rewrites; exit 4 if it falls into one."""
    invocation = context.ensure_object(Invocation)

    from graphopt.catalog import resolve
    from graphopt.cli.progress import ProgressLine
    from graphopt.testing import run_traps

    item = resolve(name)
    with ProgressLine(invocation) as progress:
        progress(f"trying {name}")
        results = run_traps(item)
    failed = [result for result in results if not result.ok]
    if invocation.json:
        cases = [{**dataclasses.asdict(result), "ok": result.ok} for result in results]
        print_json({"ok": not failed, "pass": name, "traps": cases})
    elif not invocation.quiet:
        from graphopt.cli.render import make_console, print_line, print_table

        console = make_console()
        shown = results if invocation.verbose else [result for result in results if not result.ok]
        rows = [
            (
                result.trap,
                "ok" if result.ok else "WRONG",
                "changed" if result.changed else "left alone",
                result.problem or result.not_run or result.why,
            )
            for result in shown
        ]
        if rows:
            print_table(
                console, ("trap", "result", "the pass", "what it holds, or what is wrong"), rows
            )
            print_line(console)
        print_line(
            console,
            f"{len(results) - len(failed)} of {len(results)} traps avoided by {name}",
            "bold red" if failed else "green",
        )
    return EquivalenceError.exit_code if failed else 0


def _as_data(info: PassInfo) -> dict[str, Any]:
    return {
        "name": info.name,
        "promise": str(info.promise),
        "distribution": info.distribution,
        "source": info.source,
        "summary": info.summary,
        "description": info.description,
        "options": [
            {
                "name": option.name,
                "type": option.type_name,
                "default": option.default
                if isinstance(option.default, bool | int | float | str | None)
                else str(option.default),
                "required": option.required,
                "help": option.help,
            }
            for option in info.options
        ],
    }
