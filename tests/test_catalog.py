"""Passes are found by name, given options from text, and anything callable can run as one."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import onnx_ir.passes.common  # noqa: TID251 - the passes that it ships
import pytest

from graphopt import catalog
from graphopt.errors import UsageError
from graphopt.graph import from_text, ir
from graphopt.plugin import Journal, Pass, option

MODEL = """
<ir_version: 8, opset_import: ["" : 17]>
small (float[2] x) => (float[2] y) { a = Identity (x) y = Relu (a) }
"""


@dataclass(frozen=True)
class Optioned(Pass):
    """Has an option of every type."""

    name = "optioned"
    limit: int = option(1 << 20, "bytes")
    ratio: float = option(0.5, "share")
    keep: bool = option(False, "whether to keep")
    label: str | None = option(None, "a text")

    def run(self, model: ir.Model, journal: Journal) -> None:
        """Do nothing."""


def make(spec: str) -> Optioned:
    name, options = catalog._parse_spec(spec)
    assert name == "optioned"
    made = catalog._construct(catalog.describe(Optioned), options)
    assert isinstance(made, Optioned)
    return made


def remove_nothing(model: ir.Model) -> None:
    """A plain function as a pass."""


def test_options_take_their_types_from_the_fields() -> None:
    made = make("optioned{limit=4KB, ratio=0.25, keep=true, label=a b}")
    assert made == Optioned(limit=4096, ratio=0.25, keep=True, label="a b")
    assert make("optioned{label=none}") == Optioned()


def test_a_spec_tells_only_what_differs_and_reads_back() -> None:
    assert catalog.spec_of(Optioned()) == "optioned"
    spec = catalog.spec_of(Optioned(limit=7, keep=True))
    assert spec == "optioned{limit=7,keep=true}"
    assert make(spec) == Optioned(limit=7, keep=True)


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("optioned{limt=3}", "did you mean 'limit'"),
        ("optioned{limit=many}", "'limit' must be int"),
        ("optioned{keep=perhaps}", "'keep' must be bool"),
        ("optioned{limit}", "write option=value"),
        ("optioned{limit=3", "is no pass spec"),
        ("", "is no pass spec"),
    ],
)
def test_a_bad_spec_says_what_to_write(spec: str, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        make(spec)


def test_an_unknown_pass_is_answered_with_the_nearest() -> None:
    with pytest.raises(UsageError, match="did you mean 'fold-constants'"):
        catalog.resolve("fold-constant")


def test_specs_split_outside_braces_only() -> None:
    assert catalog.split_specs("a, b{x=1,y=2} ,c,") == ["a", "b{x=1,y=2}", "c"]


@pytest.mark.parametrize(
    ("text", "size"), [("4096", 4096), ("64KB", 65536), ("1m", 1 << 20), ("2GB", 2 << 30)]
)
def test_sizes_have_units(text: str, size: int) -> None:
    assert catalog.parse_size(text) == size


@pytest.mark.parametrize(
    "item",
    [
        onnx_ir.passes.common.IdentityEliminationPass,
        onnx_ir.passes.common.IdentityEliminationPass(),
        "onnx_ir.passes.common:IdentityEliminationPass",
    ],
    ids=["class", "instance", "spec"],
)
def test_a_pass_of_onnx_ir_runs_unchanged(item: object) -> None:
    made = catalog.resolve(item)
    assert made.name == "identity-elimination"
    model, journal = from_text(MODEL), Journal(made.name)
    made.run(model, journal)
    assert [node.op_type for node in model.graph] == ["Relu"]
    assert len(journal.rewrites) == 1


def test_a_plain_function_runs_as_a_pass() -> None:
    made = catalog.resolve(remove_nothing)
    assert made.name == "remove-nothing"
    assert catalog.describe(remove_nothing).summary == "A plain function as a pass."


@pytest.mark.parametrize("item", [3, object(), "no_such_module:thing", "math:no_such"])
def test_what_cannot_run_is_a_usage_error(item: object) -> None:
    with pytest.raises(UsageError):
        catalog.resolve(item)


@dataclass(frozen=True)
class Demanding(Pass):
    """A pass with an option that has no default, and one that text cannot give."""

    name = "demanding"

    ratio: float
    method: Literal["a", "b"] = "a"

    def run(self, model: ir.Model, journal: Journal) -> None:
        pass


def test_an_option_without_a_default_has_to_be_given() -> None:
    ratio, method = catalog.describe(Demanding).options
    assert ratio.required
    assert not method.required
    with pytest.raises(UsageError, match=r"demanding\{ratio=\.\.\.\}"):
        catalog.resolve(f"{__name__}:Demanding")
    assert catalog.resolve(f"{__name__}:Demanding{{ratio=0.5}}") == Demanding(0.5)
    with pytest.raises(UsageError, match="'method' must be"):
        catalog.resolve(f"{__name__}:Demanding{{ratio=0.5,method=b}}")


def test_two_passes_of_one_spec_are_told_apart() -> None:
    @dataclass(frozen=True)
    class Impostor(Optioned):
        pass

    assert catalog.told_apart([Optioned(), Optioned()]) == (Optioned(), Optioned())
    with pytest.raises(UsageError, match="'optioned'"):
        catalog.told_apart([Optioned(), Impostor()])


def test_what_a_built_in_pass_annotates_is_an_option_of_it() -> None:
    """Passes without options have no decorator, which takes half of their import's time."""
    import graphopt_passes

    for kind in graphopt_passes.PASSES:
        for parent in kind.__mro__:
            own = [
                name
                for name, hint in vars(parent).get("__annotations__", {}).items()
                if "ClassVar" not in str(hint)
            ]
            assert not own or "__dataclass_params__" in vars(parent), (parent, own)
