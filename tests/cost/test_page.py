"""The HTML page: what it holds, and what a browser makes of it."""

from __future__ import annotations

import base64
import hashlib
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

import graphopt
from graphopt.cost import Cost, NodeCost, Parameter
from graphopt.cost.latency.machine import Ceilings, MachineProfile, ThreadFit
from graphopt.cost.latency.prediction import Latency, NodeLatency
from graphopt.cost.memory import MemoryUse, Moment
from graphopt.cost.page import cost_page
from graphopt.cost.quantity import free
from graphopt.errors import UsageError
from tests.cost.browser import View, chromium, opened

pytest.importorskip("plotly", reason="plotly is not installed")

HOSTILE = "<b>&lt;$x$</script ><script>alert(1)</script><img src=x onerror=alert(2)>%{x}"


def node(place: int, **changes: Any) -> NodeCost:
    """One of several nodes, no two with the same figures."""
    op_type = ("Conv", "Relu", "MatMul")[place % 3]
    figures = {
        "name": f"/block.{place // 6}/{op_type}_{place}",
        "op_type": op_type,
        "module": f"block.{place // 6}",
        "shape": (1, 8, place + 1),
        "executions": 1,
        "macs": 0 if op_type == "Relu" else 1000 * (place * 7 % 31 + 1),
        "flops": 10 if op_type == "Relu" else 2000 * (place * 7 % 31 + 1) + place,
        "transcendentals": 0,
        "parameters": 5 * place,
        "parameter_bytes": 20 * place,
        "bytes_read": 300 + place,
        "bytes_written": 100,
    }
    return NodeCost(**{**figures, **changes})


def cost_of(rows: list[NodeCost]) -> Cost:
    timeline = tuple(
        Moment(row.name, 1000 + 10 * (place * 5 % 17), 900 + 10 * (place * 3 % 13))
        for place, row in enumerate(rows)
    )
    peak = max(timeline, key=lambda moment: moment.bytes)
    less = max(timeline, key=lambda moment: moment.bytes_in_place)
    return Cost(
        by_node=tuple(rows),
        memory=MemoryUse(
            peak.bytes, peak.node, less.bytes_in_place, less.node, input_bytes=64, timeline=timeline
        ),
        parameters=tuple(
            Parameter("FLOAT", row.parameters, row.parameter_bytes, (place,))
            for place, row in enumerate(rows)
            if row.parameters
        ),
        notes=("a note & <b>more</b>",),
    )


COST = cost_of([node(place) for place in range(30)])
SMALLER = cost_of([node(place) for place in range(20)])


def latency_of(cost: Cost) -> Latency:
    """As if each node took 1 us, and 1 ns for each FLOP; a run takes 5 us beside them."""
    seconds = [1e-6 + row.flops / 1e9 for row in cost.by_node]
    whole = sum(seconds) + 5e-6
    rows = tuple(
        NodeLatency(
            name=f"{row.name}/FusedSomehow/",
            op_type=f"com.example.{row.op_type}",
            kind="a kind",
            seconds=time,
            low=0.8 * time,
            high=1.3 * time,
            share=time / whole,
            flops=float(row.flops),
            bytes=float(row.bytes_read + row.bytes_written),
            bound="memory",
        )
        for row, time in zip(cost.by_node, seconds, strict=True)
    )
    return Latency(whole, 0.9 * whole, 1.2 * whole, rows, "a machine", 1, ("a doubt",))


CEILINGS = Ceilings(2e9, 8e9, near_bandwidth=9e9, far_bandwidth=1e9, dispatch=1e-6)
MACHINE = MachineProfile(
    "a machine",
    "a processor",
    4,
    "1.0",
    "cpu",
    {
        1: ThreadFit(
            CEILINGS,
            run_overhead=(5e-6, 0.0),
            profiler_charge=(1e-6, 0.0),
            spread=0.1,
            typical=(0.0, 1.0),
            classes={},
        )
    },
)


class Elements(HTMLParser):
    """The elements of a page, and the text of its scripts, as a browser reads them."""

    def __init__(self, text: str) -> None:
        super().__init__(convert_charrefs=True)
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.scripts: list[tuple[dict[str, str | None], str]] = []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag == "script":
            self.scripts.append((dict(attrs), ""))

    def handle_data(self, data: str) -> None:
        if self.tags and self.tags[-1][0] == "script":
            attrs, text = self.scripts[-1]
            self.scripts[-1] = (attrs, text + data)

    def handle_endtag(self, tag: str) -> None:
        self.tags.append((f"/{tag}", {}))


def data_of(page: str) -> dict[str, Any]:
    (text,) = [text for attrs, text in Elements(page).scripts if attrs.get("id") == "data"]
    return json.loads(text)


def test_it_holds_the_figures_to_the_integer() -> None:
    (model,) = data_of(cost_page(COST, title="model.onnx"))["models"]
    whole = COST.total
    assert model["total"]["macs"] == whole.macs == sum(row.macs for row in COST.by_node)
    assert model["total"]["flops"] == whole.flops
    assert model["total"]["bytes"] == whole.bytes_read + whole.bytes_written
    assert model["total"]["peak"] == COST.memory.peak_bytes
    assert model["nodes"]["name"] == [row.name for row in COST.by_node]
    assert model["nodes"]["flops"] == [row.flops for row in COST.by_node]
    assert model["nodes"]["shape"][4] == "1x8x5"
    assert model["timeline"]["in_place"] == [m.bytes_in_place for m in COST.memory.timeline]
    assert [group["name"] for group in model["types"]] == ["Conv", "Relu", "MatMul"]


def test_a_shared_parameter_is_owned_by_its_first_reader() -> None:
    rows = [node(place, parameters=8) for place in range(3)]
    shared = Cost(tuple(rows), COST.memory, parameters=(Parameter("FLOAT", 8, 32, (1, 2)),))
    (model,) = data_of(cost_page(shared, title="m"))["models"]
    assert model["nodes"]["owned"] == [0, 8, 0]
    assert model["total"]["parameters"] == 8


def test_it_loads_nothing_and_its_policy_permits_its_own_scripts_alone() -> None:
    page = Elements(cost_page(COST, title="model.onnx"))
    for tag, attributes in page.tags:
        assert tag not in {"iframe", "object", "embed", "base", "form"}
        assert not (attributes.get("src") or attributes.get("href") or "data:,").startswith("http")
        assert "src" not in attributes
    (policy,) = [
        attributes["content"]
        for tag, attributes in page.tags
        if tag == "meta" and attributes.get("http-equiv") == "Content-Security-Policy"
    ]
    assert policy is not None
    assert policy.startswith("default-src 'none';")
    scripts = [text for attrs, text in page.scripts if "type" not in attrs]
    assert len(scripts) == 2
    for script in scripts:
        digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
        assert f"'sha256-{digest}'" in policy
    assert "script-src 'sha256-" in policy
    assert "unsafe" not in policy.partition("script-src")[2].partition(";")[0]


def test_a_hostile_name_is_only_text() -> None:
    plain = cost_page(COST, title="model.onnx")
    rows = [node(0, name=HOSTILE, op_type=HOSTILE, module=HOSTILE, note=HOSTILE), node(1)]
    page = cost_page(cost_of(rows), title=HOSTILE, after=COST, after_title=HOSTILE)
    names = [tag for tag, _ in Elements(page).tags]
    assert names == [tag for tag, _ in Elements(plain).tags]
    assert data_of(page)["models"][0]["nodes"]["name"][0] == HOSTILE


_PRINT_DIGEST = """
import hashlib
from tests.cost.test_page import COST, MACHINE, SMALLER, cost_page, latency_of
page = cost_page(COST, title="a", after=SMALLER, latency=latency_of(COST), machine=MACHINE)
print(hashlib.sha256(page.encode()).hexdigest())
"""


def test_the_same_input_gives_the_same_bytes(pytestconfig: pytest.Config) -> None:
    digests = {
        subprocess.run(
            [sys.executable, "-c", _PRINT_DIGEST],
            cwd=pytestconfig.rootpath,
            env={**os.environ, "PYTHONHASHSEED": seed},
            check=True,
            capture_output=True,
        ).stdout
        for seed in ("1", "2")
    }
    assert len(digests) == 1


def test_free_dims_are_refused_by_name() -> None:
    rows = [node(0, macs=3 * free("batch")), node(1, bytes_read=free("sequence") * free("batch"))]
    with pytest.raises(UsageError, match="--dim batch=1 --dim sequence=1") as caught:
        cost_page(cost_of(rows), title="model.onnx")
    assert "\n" not in str(caught.value)
    with pytest.raises(UsageError, match="batch"):
        cost_page(COST, title="model.onnx", after=cost_of(rows))
    sized = cost_of(rows).at({"batch": 2, "sequence": 3})
    (model,) = data_of(cost_page(sized, title="model.onnx"))["models"]
    assert model["nodes"]["macs"][0] == 6
    assert model["total"]["bytes"] == 6 + 100 + rows[0].bytes_read + 100


def test_without_plotly_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("plotly", "plotly.offline"):
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(UsageError, match=r"pip install 'graphopt\[html\]'"):
        cost_page(COST, title="model.onnx")


def test_executed_nodes_stand_in_the_modules_of_their_sources() -> None:
    latency = latency_of(COST)
    (model,) = data_of(cost_page(COST, title="m", latency=latency))["models"]
    assert model["executed"]["module"] == [row.module for row in COST.by_node]
    assert model["executed"]["seconds"] == [row.seconds for row in latency.by_node]


# In a browser --------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with chromium() as found:
        yield found


def write(folder: Path, text: str) -> Path:
    path = folder / "page.html"
    path.write_text(text, encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def one_page(browser: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[View]:
    path = write(tmp_path_factory.mktemp("one"), cost_page(COST, title="model.onnx"))
    with opened(browser, path) as found:
        yield found


@pytest.fixture
def view(one_page: View) -> View:
    """The page of one model, as it is when it has just been opened (that takes a second)."""
    one_page.page.locator("#filter").fill("")
    for group, title in (("metrics", "FLOPs"), ("metrics", "MACs"), ("tables", "nodes")):
        choose(one_page, group, title)
    return one_page


def names_shown(view: View) -> list[str]:
    return [text.split("\n")[0] for text in view.texts("#table tbody td.name")]


def sort_by(view: View, key: str) -> None:
    view.page.locator(f"#table thead [data-key={key}]").click()


def choose(view: View, group: str, title: str) -> None:
    view.page.locator(f"#{group}").get_by_text(title, exact=True).click()


def over(view: View, selector: str) -> None:
    """Put the mouse on the first that matches; plotly has a sheet of glass over its charts."""
    place = view.page.locator(selector).first
    place.scroll_into_view_if_needed()
    box = place.bounding_box()
    view.page.mouse.move(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
    view.page.mouse.move(box["x"] + box["width"] / 2 + 1, box["y"] + box["height"] / 2)


def test_all_charts_are_drawn(view: View) -> None:
    worked = [row for row in COST.by_node if row.flops]
    assert view.count("#roofline .scatterlayer path.point") == len(worked)
    assert view.count("#types .barlayer path") == 2  # no Relu has MACs
    assert view.count("#memory .scatterlayer path.js-line") == 2
    assert view.count("#memory .scatterlayer path.point") == 2  # the peaks
    multiplying = sum(1 for row in COST.by_node if row.macs)
    assert view.count("#icicle path.surface") == 1 + len(COST.by_module[1:]) + multiplying


def test_a_click_on_a_heading_sorts(view: View) -> None:
    rows = COST.by_node
    by_macs = sorted(rows, key=lambda row: -row.macs)
    assert names_shown(view) == [row.name for row in by_macs]
    sort_by(view, "parameters")
    assert names_shown(view) == [row.name for row in reversed(rows)]
    heading = view.page.locator("#table th", has=view.page.locator("[data-key=parameters]"))
    assert heading.get_attribute("aria-sort") == "descending"
    sort_by(view, "parameters")
    assert names_shown(view) == [row.name for row in rows]
    assert heading.get_attribute("aria-sort") == "ascending"
    sort_by(view, "name")
    assert names_shown(view) == sorted(row.name for row in rows)


def test_text_filters_the_rows(view: View) -> None:
    view.page.locator("#filter").fill("BLOCK.2/rel")
    assert names_shown(view) == ["/block.2/Relu_13", "/block.2/Relu_16"]
    assert view.texts("#matches") == ["2 of 30 rows"]
    view.page.locator("#filter").fill("no such node")
    assert names_shown(view) == []
    view.page.locator("#filter").fill("")
    assert len(names_shown(view)) == 30


def test_rows_may_be_modules_and_op_types(view: View) -> None:
    choose(view, "tables", "modules")
    by_macs = sorted(COST.by_module, key=lambda group: -group.macs)
    assert names_shown(view) == [group.name or "(whole model)" for group in by_macs]
    choose(view, "tables", "op types")
    by_macs = sorted(COST.by_type, key=lambda group: -group.macs)
    assert names_shown(view) == [group.name for group in by_macs]
    shares = view.texts("#table td.share .figure")
    whole = COST.total.macs
    assert shares == [f"{100 * group.macs / whole:.1f}%" for group in by_macs[:2]] + ["0%"]


@pytest.mark.parametrize(
    ("title", "total"),
    [
        ("MACs", COST.total.macs),
        ("FLOPs", COST.total.flops),
        ("parameters", COST.total.parameters),
        ("bytes moved", COST.total.bytes_read + COST.total.bytes_written),
    ],
)
def test_the_metric_can_be_switched(view: View, title: str, total: int) -> None:
    choose(view, "metrics", title)
    drawn = view.page.evaluate("document.getElementById('icicle').data[0].values")
    assert sum(drawn) == total
    bars = view.page.evaluate("[...document.getElementById('types').data[0].x]")
    assert sum(bars) == total
    assert view.texts("#types-caption") == [title]
    assert view.page.locator("#table [aria-sort=descending]").count() == 1


def test_a_click_on_a_bar_shows_its_rows(view: View) -> None:
    over(view, "#types .barlayer path")
    view.page.mouse.down()
    view.page.mouse.up()
    most = max(COST.by_type, key=lambda group: group.macs)
    assert view.page.locator("#filter").input_value() == most.name
    assert len(names_shown(view)) == most.nodes


def test_the_headline_has_the_totals(view: View) -> None:
    cards = dict(text.split("\n")[:2] for text in view.texts("#headline .cards > div"))
    assert cards["parameters"] == f"{COST.total.parameters:,}"
    assert cards["peak activations"] == "1.02\N{NO-BREAK SPACE}kB"  # 1,020 bytes in place
    assert view.texts("#notes li") == ["a note & <b>more</b>"]


def test_nothing_was_requested_or_complained_of(view: View) -> None:
    """All that the tests above did with the page included."""
    assert view.console == []
    assert [url.rpartition("/")[2] for url in view.requests] == ["page.html"]


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_a_narrow_page_does_not_scroll_sideways(browser: Any, tmp_path: Path, scheme: str) -> None:
    page = cost_page(
        COST,
        title="a_model_with_a_long_name_that_has_no_spaces_in_it.onnx",
        after=SMALLER,
        after_title="a_model_with_a_long_name_that_has_no_spaces_in_it.opt.onnx",
        latency=latency_of(COST),
        after_latency=latency_of(SMALLER),
        machine=MACHINE,
    )
    with opened(browser, write(tmp_path, page), width=420, scheme=scheme) as view:
        assert view.page.evaluate("document.documentElement.scrollWidth") <= 420
        assert view.console == []


def test_before_and_after_stand_side_by_side(browser: Any, tmp_path: Path) -> None:
    page = cost_page(COST, title="before.onnx", after=SMALLER, after_title="after.onnx")
    with opened(browser, write(tmp_path, page)) as view:
        rows = [text.split("\t") for text in view.texts("#headline tbody tr")]
        (macs,) = [row for row in rows if row[0] == "MACs"]
        ratio = SMALLER.total.macs / COST.total.macs
        assert float(macs[4]) == pytest.approx(ratio, rel=5e-3)
        assert macs[3] == f"\N{MINUS SIGN}{100 * (1 - ratio):.1f}%"
        assert view.count("#types .barlayer path") == 4
        drawn = view.page.evaluate(
            "document.getElementById('memory').data.filter((t) => t.mode === 'lines')"
            ".map((t) => t.y.length)"
        )
        assert drawn == [30, 30, 20, 20]
        assert len(names_shown(view)) == 20
        choose(view, "models", "before.onnx")
        assert len(names_shown(view)) == 30
        assert view.console == []


def test_with_a_latency_the_roofline_has_its_roofs(browser: Any, tmp_path: Path) -> None:
    latency = latency_of(COST)
    page = cost_page(COST, title="model.onnx", latency=latency, machine=MACHINE)
    with opened(browser, write(tmp_path, page)) as view:
        assert view.texts("#roofline-title") == ["Roofline"]
        assert view.count("#roofline .scatterlayer path.js-line") == 4  # two peaks, two bandwidths
        assert view.count("#roofline .scatterlayer path.point") == 30
        points = view.page.evaluate(
            "document.getElementById('roofline').data.filter((t) => t.mode === 'markers')"
            ".flatMap((t) => [...t.y])"
        )
        assert sorted(points) == pytest.approx(
            sorted(row.flops / row.seconds for row in latency.by_node)
        )
        slowest = max(latency.by_node, key=lambda row: row.seconds)
        assert names_shown(view)[0] == slowest.name
        drawn = view.page.evaluate("document.getElementById('icicle').data[0].values")
        assert sum(drawn) == pytest.approx(latency.seconds - 5e-6)
        assert (
            "a run takes 5.00\N{NO-BREAK SPACE}\N{MICRO SIGN}s" in view.texts("#icicle-caption")[0]
        )
        assert view.texts("#notes li") == [*COST.notes, "a doubt"]
        assert view.console == []


def test_hostile_names_do_nothing_in_a_browser(browser: Any, tmp_path: Path) -> None:
    rows = [
        node(place, name=HOSTILE, op_type=HOSTILE, module=HOSTILE, note=HOSTILE)
        for place in range(3)
    ]
    latency = latency_of(cost_of(rows))
    page = cost_page(cost_of(rows), title=HOSTILE, latency=latency, machine=MACHINE)
    with opened(browser, write(tmp_path, page)) as view:
        choose(view, "metrics", "FLOPs")
        over(view, "#roofline .scatterlayer path.point")
        hover = view.page.locator("#roofline .hovertext").first
        assert HOSTILE[:20] in hover.text_content()
        assert view.page.locator("h1").inner_text() == HOSTILE
        assert names_shown(view)[0] == HOSTILE
        assert view.dialogs == []
        assert view.count("img") == 0
        assert view.console == []
        assert len(view.requests) == 1


def test_a_large_model_is_capped_and_says_so(browser: Any, tmp_path: Path) -> None:
    rows = [node(place) for place in range(5000)]
    with opened(browser, write(tmp_path, cost_page(cost_of(rows), title="large.onnx"))) as view:
        assert view.count("#roofline .scatterlayer path.point") == 2000
        assert "The 2,000 largest of 5,000 are drawn" in view.texts("#roofline-caption")[0]
        assert len(names_shown(view)) == 50
        assert view.texts("#matches") == ["5,000 of 5,000 rows, the first 50 shown"]
        view.page.locator("#more").click()
        assert len(names_shown(view)) == 550
        assert "Merged:" in view.texts("#icicle-caption")[0]
        assert view.console == []


def test_a_real_model(browser: Any, fixtures: Path, tmp_path: Path) -> None:
    cost = graphopt.estimate_cost(fixtures / "digits_transformer.onnx", dims={"batch": 2})
    with opened(browser, write(tmp_path, cost_page(cost, title="digits"))) as view:
        worked = [row for row in cost.by_node if row.flops]
        assert view.count("#roofline .scatterlayer path.point") == len(worked)
        assert f"{len(cost.by_node)} nodes" in view.texts("#subtitle")[0]
        assert view.console == []


def test_a_model_without_work_has_no_empty_charts(browser: Any, tmp_path: Path) -> None:
    rows = [
        node(place, macs=0, flops=0, parameters=0, bytes_read=0, bytes_written=0)
        for place in range(2)
    ]
    page = write(tmp_path, cost_page(cost_of(rows), title="idle.onnx"))
    with opened(browser, page) as view:
        for chart in ("icicle", "types", "roofline"):
            assert not view.page.locator(f"#{chart}").is_visible()
        assert view.texts("#icicle-caption") == ["No node has any FLOPs."]
        assert len(names_shown(view)) == 2
        assert view.console == []
