"""cost_page: one HTML document that holds its data, its scripts and the plotting library."""

from __future__ import annotations

import base64
import hashlib
import html
import json
import string
from importlib import resources
from typing import TYPE_CHECKING, Any

from graphopt.cost.page.data import machine_data, model_data, need_numbers
from graphopt.cost.result import Cost
from graphopt.errors import UsageError

if TYPE_CHECKING:
    from graphopt.cost.latency.machine import MachineProfile
    from graphopt.cost.latency.prediction import Latency

_SCRIPTS = ("format.js", "charts.js", "icicle.js", "roofline.js", "table.js", "page.js")


def cost_page(
    cost: Cost,
    *,
    title: str,
    after: Cost | None = None,
    after_title: str | None = None,
    latency: Latency | None = None,
    after_latency: Latency | None = None,
    machine: MachineProfile | None = None,
) -> str:
    """A page that shows where a model's cost is, alone or beside another model.

    The same arguments give the same text. Nothing in it is loaded from anywhere: a content
    security policy forbids it, and permits no script but the page's own, whatever the names in
    the model are.

    Args:
        cost: what the model costs.
        title: what to call it, its file's name say.
        after: what another model costs that is to be compared with it.
        after_title: what to call that one.
        latency: the predicted latency of the model.
        after_latency: that of the other one.
        machine: the machine of these predictions; the roofline chart shows its ceilings.

    Returns:
        The text of an HTML file.

    Raises:
        UsageError: a cost depends on free dims, or plotly is not installed, or the machine has
            no ceilings for the latency's number of threads.
    """
    plotly = _plotly()
    need_numbers(cost)
    models = [model_data(cost, title, latency)]
    if after is not None:
        need_numbers(after)
        models.append(model_data(after, after_title or "after", after_latency))
    heading = " \N{RIGHTWARDS ARROW} ".join(model["label"] for model in models)
    script = "\n".join(('"use strict";', "{", *map(_resource, _SCRIPTS), "}"))
    roofs = latency and machine and machine_data(machine, latency.threads)
    data = {"models": models, "machine": roofs}
    return string.Template(_resource("page.html")).substitute(
        policy=_policy(plotly, script),
        title=html.escape(heading),
        style=_resource("page.css"),
        data=_json(data),
        plotly=plotly,
        script=script,
    )


def _plotly() -> str:
    try:
        from plotly.offline import get_plotlyjs
    except ImportError as error:
        raise UsageError(
            "the HTML page needs plotly, which is not installed: pip install 'graphopt[html]'"
        ) from error
    return str(get_plotlyjs())


def _resource(name: str) -> str:
    return resources.files(__package__).joinpath(name).read_text("utf-8")


def _json(data: Any) -> str:
    """JSON that can stand in a script element: what could end it is written as an escape."""
    text = json.dumps(data, separators=(",", ":"), allow_nan=False)
    return text.replace("&", r"\u0026").replace("<", r"\u003c").replace(">", r"\u003e")


def _policy(*scripts: str) -> str:
    """Nothing from outside; of scripts only these, known by their hashes."""
    hashes = (
        base64.b64encode(hashlib.sha256(script.encode()).digest()).decode() for script in scripts
    )
    allowed = " ".join(f"'sha256-{digest}'" for digest in hashes)
    return (
        f"default-src 'none'; script-src {allowed}; style-src 'unsafe-inline'; img-src data: blob:"
    )
