"""Rewriting until nothing matches: what is looked at again, what ends it, what is permitted."""

from __future__ import annotations

import pytest

from graphopt.errors import PassError
from graphopt.graph import from_text, ir, to_text
from graphopt.rewrite import (
    Journal,
    Match,
    NotApplicable,
    Pattern,
    Rewriter,
    maybe,
    one_of,
    op,
    rewrite_until_stable,
    variable,
)
from graphopt.rewrite.worklist import may_match

HEAD = '<ir_version: 8, opset_import: ["" : 17, "custom" : 1]>\n'
CANCEL = op("Neg", op("Neg", variable("x")))


def model(text: str) -> ir.Model:
    return from_text(HEAD + f"g (float[3] x) => (float[3] y) {{ {text} }}")


def cancel(match: Match, rewriter: Rewriter) -> None:
    rewriter.replace(match.root, match.value("x"))


def run(built: ir.Model, *patterns: Pattern, journal: Journal | None = None) -> list[str]:
    journal = journal or Journal("test-pass")
    rewrite_until_stable(built, patterns, cancel, journal)
    return [node.op_type for node in built.graph]


def test_a_rewrite_makes_the_next_one_possible() -> None:
    # Only the innermost pair matches at first, and the pair around it is found afterwards.
    swap = op("Exp", op("Log", variable("x")))
    built = model("a = Abs (x) b = Log (a) c = Log (b) d = Exp (c) e = Exp (d) y = Abs (e)")
    assert run(built, swap) == ["Abs", "Abs"]


def test_a_consumer_that_is_left_alone_is_looked_at_again() -> None:
    # `a` has two consumers until the other pair is gone.
    built = from_text(
        HEAD + "g (float[3] x) => (float[3] y, float[3] z) { e = Exp (x) a = Neg (e) b = Neg (a) "
        "y = Abs (b) f = Neg (a) z = Abs (f) }"
    )
    journal = Journal("test-pass")
    assert run(built, CANCEL, journal=journal) == ["Exp", "Neg", "Neg", "Abs", "Neg", "Abs"]
    reasons = {decline.reason for decline in journal.declined}
    assert reasons == {"Neg output 'a' has another consumer"}

    def drop_exp(match: Match, rewriter: Rewriter) -> None:
        if match.root.op_type == "Sqrt":
            rewriter.replace(match.root, match.value("x"))
        else:
            cancel(match, rewriter)

    built = from_text(
        HEAD + "g (float[3] x) => (float[3] y, float[3] z) { e = Exp (x) a = Neg (e) b = Neg (a) "
        "y = Abs (b) f = Mul (a, x) h = Sqrt (f) z = Abs (h) }"
    )
    journal = Journal("test-pass")
    rewrite_until_stable(
        built, [CANCEL, op("Sqrt", op("Mul", variable(), variable("x")))], drop_exp, journal
    )
    assert [node.op_type for node in built.graph] == ["Exp", "Abs", "Abs"]
    # What became possible in the end is not among what was declined.
    assert journal.declined == []


def test_rewrites_that_undo_each_other_are_an_error() -> None:
    def swap(match: Match, rewriter: Rewriter) -> None:
        other = "Log" if match.root.op_type == "Exp" else "Exp"
        rewriter.replace(match.root, rewriter.node(other, [match.value("x")]))

    with pytest.raises(PassError, match=r"test-pass does not come to an end.*-> y"):
        rewrite_until_stable(
            model("y = Exp (x)"), [op(("Exp", "Log"), variable("x"))], swap, Journal("test-pass")
        )


def test_an_error_of_the_pass_is_passed_on() -> None:
    def fail(match: Match, rewriter: Rewriter) -> None:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        rewrite_until_stable(model("y = Exp (x)"), [op("Exp")], fail, Journal("test-pass"))


def test_the_second_pattern_gets_its_turn_where_the_first_declines() -> None:
    def only_longest(match: Match, rewriter: Rewriter) -> None:
        if len(match.matched) == 2:
            raise NotApplicable("too short")
        cancel(match, rewriter)

    built = model("e = Exp (x) a = Neg (e) b = Neg (a) c = Neg (b) y = Abs (c)")
    triple = op("Neg", op("Neg", op("Neg", variable("x"))))
    journal = Journal("test-pass")
    rewrite_until_stable(built, [CANCEL, triple], only_longest, journal)
    assert [node.op_type for node in built.graph] == ["Exp", "Abs"]


def test_functions_and_subgraphs_are_rewritten() -> None:
    built = from_text(
        HEAD + "g (bool c, float[3] x) => (float[3] y) { y = If (c) <"
        "then_branch = t () => (float[3] y1) { "
        "e = Exp (x) a = Neg (e) b = Neg (a) y1 = Abs (b) },"
        "else_branch = e () => (float[3] y2) { y2 = custom.f (x) }> }"
        '<domain: "custom", opset_import: ["" : 17]> f (v) => (w) '
        "{ e = Exp (v) a = Neg (e) b = Neg (a) w = Abs (b) }"
    )
    journal = Journal("test-pass")
    run(built, CANCEL, journal=journal)
    assert len(journal.rewrites) == 2
    (function,) = built.functions.values()
    assert [node.op_type for node in function.graph] == ["Exp", "Abs"]


@pytest.mark.parametrize("pattern", [CANCEL, op("Abs", op("Neg", variable("x")))])
def test_an_op_that_the_model_defines_itself_is_not_matched(pattern: Pattern) -> None:
    text = (
        HEAD + "g (float[3] x) => (float[3] y) { e = Exp (x) a = Neg (e) b = Neg (a) y = Abs (b) }"
    )
    assert run(from_text(text), pattern) != ["Exp", "Neg", "Neg", "Abs"]
    text += '<domain: "", opset_import: ["" : 17]> Neg (v) => (w) { w = Sqrt (v) }'
    assert run(from_text(text), pattern) == ["Exp", "Neg", "Neg", "Abs"]


PAIRS = "e = Exp (x) a = Neg (e) b = Neg (a) f = Exp (b) c = Neg (f) d = Neg (c) y = Abs (d)"


def test_the_journal_limits_how_many_changes_are_made() -> None:
    for limit, left in ((0, 4), (1, 2), (2, 0)):
        journal = Journal("test-pass", limit=limit)
        kept = run(model(PAIRS), CANCEL, journal=journal)
        assert kept.count("Neg") == left
        assert len(journal.rewrites) == limit


def test_the_journal_skips_sites_by_name() -> None:
    everything = Journal("test-pass")
    run(model(PAIRS), CANCEL, journal=everything)
    sites = [entry.site for entry in everything.rewrites]
    assert len(set(sites)) == 2
    for skipped in sites:
        journal = Journal("test-pass", skip=frozenset({skipped}))
        run(model(PAIRS), CANCEL, journal=journal)
        assert [entry.site for entry in journal.rewrites] == [
            site for site in sites if site != skipped
        ]


def test_the_same_input_gives_the_same_model_and_record() -> None:
    results = []
    for _ in range(2):
        built, journal = model(PAIRS), Journal("test-pass")
        run(built, CANCEL, journal=journal)
        results.append((to_text(built), journal.rewrites, journal.declined))
    assert results[0] == results[1]


def test_a_decline_said_twice_counts_once_and_goes_when_the_site_is_changed() -> None:
    journal = Journal("test-pass")
    journal.decline("here", "because")
    journal.decline("here", "because")
    journal.decline("there", "because")
    assert [entry.site for entry in journal.declined] == ["here", "there"]
    journal.record("here", "done")
    assert [entry.site for entry in journal.declined] == ["there"]


@pytest.mark.parametrize("hub", [2, 100])
def test_consumers_of_a_hub_are_rewritten(hub: int) -> None:
    branches = "".join(f"a{i} = Neg (h) b{i} = Neg (a{i}) " for i in range(hub))
    total = ", ".join(f"b{i}" for i in range(hub))
    built = model(f"h = Exp (x) {branches} s = Sum ({total}) y = Abs (s)")
    assert run(built, CANCEL) == ["Exp", "Sum", "Abs"]
    assert list(built.graph[1].inputs) == [built.graph[0].outputs[0]] * hub


def test_below_a_hub_that_may_be_shared_everything_is_looked_at_again() -> None:
    # Each Exp matches only when the last node has made the Sqrt go.
    count = 40
    branches = "".join(f"b{i} = Exp (n) " for i in range(count))
    total = ", ".join(f"b{i}" for i in range(count))
    built = model(f"a = Abs (x) s = Sqrt (a) n = Neg (s) {branches} y = Sum ({total})")
    root = built.graph[1]

    def step(match: Match, rewriter: Rewriter) -> None:
        if match.root.op_type == "Exp":
            rewriter.replace(match.root, match.value("x"))
        elif root.graph is not None:
            rewriter.replace(root, root.inputs[0] or [])

    exponents = op("Exp", op("Neg", op("Abs", variable("x"), shared=True), shared=True))
    rewrite_until_stable(built, [exponents, op("Sum")], step, Journal("test-pass"))
    assert [node.op_type for node in built.graph] == ["Sum"]


def test_a_pattern_may_match_only_where_all_that_it_needs_occurs() -> None:
    relu, conv, norm = (("ai.onnx", kind) for kind in ("Relu", "Conv", "BatchNormalization"))
    nested = op("BatchNormalization", op("Conv"))
    either = op("BatchNormalization", one_of(op("Conv"), op("Gemm")), maybe(op("Cast")))
    assert may_match([nested], frozenset({relu, conv, norm}))
    assert may_match([either], frozenset({conv, norm}))
    assert may_match([op("Relu", variable())], frozenset({relu}))
    assert not may_match([nested], frozenset({relu, norm}))
    assert not may_match([either], frozenset({relu, norm}))
    assert not may_match([op("Relu", domain="com.example")], frozenset({relu}))
    assert may_match([nested, op("Relu")], frozenset({relu}))
