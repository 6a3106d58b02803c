"""`graphopt prune`."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from graphopt.graph import load, verify
from graphopt.runtime import Session, seeded_feeds
from tests.cli.conftest import Invoke


@pytest.fixture
def model(fixtures: Path) -> Path:
    """A small residual network with a free batch dim."""
    return fixtures / "digits_resnet.onnx"


def test_prunes_a_share_of_every_group(model: Path, tmp_path: Path, invoke: Invoke) -> None:
    target = tmp_path / "small.onnx"
    done = invoke("prune", model, target, "--ratio", "0.5", "--no-measure", "--json")
    assert done.code == 0
    report = done.json
    assert report["groups"]
    assert all(before == 2 * after for before, after in report["groups"].values())
    assert report["macs"][1] < 0.5 * report["macs"][0]
    pruned = load(target)
    assert verify(pruned) == []
    for feed in seeded_feeds(load(model), count=2):
        first, second = Session(load(model)).run(feed), Session(pruned).run(feed)
        assert {k: v.shape for k, v in first.items()} == {k: v.shape for k, v in second.items()}


@pytest.mark.parametrize(
    ("flag", "key"), [("--target-macs", "macs"), ("--target-params", "parameters")]
)
def test_meets_a_counted_target(
    model: Path, tmp_path: Path, invoke: Invoke, flag: str, key: str
) -> None:
    target = tmp_path / "small.onnx"
    done = invoke("prune", model, target, flag, "60%", "--no-measure", "--json")
    assert done.code == 0
    before, after = done.json[key]
    assert 0.4 * before < after <= 0.6 * before


def test_a_counted_target_is_met_closely_without_data(model: Path, invoke: Invoke) -> None:
    """Groups take turns: what all of them lose at once would be a step of several percent."""
    flags = ("--target-macs", "70%", "--dry-run", "--no-measure", "--json")
    before, after = invoke("prune", model, *flags).json["macs"]
    assert 0.67 * before < after <= 0.7 * before


def test_the_counts_are_those_of_the_file(model: Path, tmp_path: Path, invoke: Invoke) -> None:
    import graphopt

    target = tmp_path / "small.onnx"
    done = invoke("prune", model, target, "--ratio", "0.3", "--no-measure", "--json")
    cost = graphopt.estimate_cost(target, dims={"batch": 1})
    assert done.json["macs"][1] == pytest.approx(cost.total.macs)


def test_keeps_what_it_is_told_to_keep(model: Path, tmp_path: Path, invoke: Invoke) -> None:
    whole = invoke("prune", model, "--ratio", "0.5", "--dry-run", "--no-measure", "--json").json
    name = next(iter(whole["groups"]))
    flags = ("--ratio", "0.5", "--dry-run", "--no-measure", "--json", "--ignore", f"^{name}$")
    ignoring = invoke("prune", model, *flags).json
    assert name not in ignoring["groups"]
    assert ignoring["frozen"][name].startswith("--ignore")
    rounded = invoke("prune", model, *flags[:5], "--round-to", "8", "--min-channels", "8").json
    assert all(after % 8 == 0 for _, after in rounded["groups"].values())


def test_measures_agreement_on_given_data(model: Path, tmp_path: Path, invoke: Invoke) -> None:
    source = load(model)
    (given,) = source.graph.inputs
    shape = [dim if isinstance(dim, int) else 32 for dim in given.shape or ()]
    data = tmp_path / "data.npz"
    values = np.random.default_rng(0).uniform(0, 1, shape).astype(np.float32)
    np.savez(data, **{given.name or "": values})
    flags = ("--dry-run", "--no-measure", "--json", "--calib", data)
    done = invoke("prune", model, "--ratio", "0.25", *flags)
    assert done.code == 0
    name, before, after = done.json["metric"]
    assert (name, before) == ("agreement", 1.0)
    assert 0 <= after <= 1
    told = invoke("prune", model, "--ratio", "0.25", *flags[:2], *flags[3:])
    assert f"measured on {len(values) // 8} samples that were held out" in told.out
    assert done.json["held_out"] == len(values) // 8
    np.savez(data, **{given.name or "": values[:1]})
    single = invoke("prune", model, "--ratio", "0.25", *flags[:2], *flags[3:])
    assert "measured on what it was fitted to" in single.out
    np.savez(data, **{given.name or "": values})
    # Nothing may change: only shares that leave every answer as it is are allowed.
    strict = invoke("prune", model, "--max-drop", "0", *flags)
    assert strict.code == 0
    assert strict.json["metric"][2] == 1.0
    refused = invoke("prune", model, "--ratio", "0.9", "--max-drop", "0", *flags[:2], *flags[3:])
    refused.fails_with(4, "--max-drop 0")


def test_changed_images_are_samples_too(
    model: Path, fixtures: Path, tmp_path: Path, invoke: Invoke
) -> None:
    """The same as bringing the changed images oneself."""
    images = np.load(fixtures / "digits_test.npz")["image"][:32]
    both = np.concatenate([images, images[..., ::-1]])

    def repaired(data: np.ndarray, *flags: str) -> dict[str, list[float]]:
        path = tmp_path / "data.npz"
        np.savez(path, image=data)
        done = invoke(
            *("prune", model, "--ratio", "0.5", "--dry-run", "--no-measure", "--json"),
            *("--calib", path, *flags),
        )
        assert done.code == 0
        errors: dict[str, list[float]] = done.json["repaired"]
        return errors

    changed = repaired(images, "--augment", "mirror")
    assert changed
    assert changed == repaired(both)
    assert changed != repaired(images)


def test_explains_every_group(model: Path, invoke: Invoke) -> None:
    done = invoke("prune", model, "--explain")
    assert done.code == 0
    assert "graph output" in done.out
    assert "groups can be pruned" in done.out
    rows = invoke("prune", model, "--explain", "--json").json["groups"]
    assert {bool(row["frozen"]) for row in rows} == {True, False}
    assert all(row["macs"] > 0 for row in rows if not row["frozen"])


def test_says_what_was_not_measured(model: Path, invoke: Invoke) -> None:
    done = invoke("prune", model, "--ratio", "0.25", "--dry-run")
    assert done.code == 0
    assert "accuracy was not measured" in done.out
    assert "dry run: nothing written" in done.out
    assert "as fast" in done.out


def test_writes_the_whole_report(model: Path, tmp_path: Path, invoke: Invoke) -> None:
    """Also where a figure is infinite: nothing was pruned, so nothing is lost."""
    data = tmp_path / "data.npz"
    np.savez(data, image=np.zeros((2, 1, 8, 8), np.float32))
    path = tmp_path / "report.json"
    flags = ("--ratio", "0", "--calib", data, "--metric", "sqnr", "--no-measure", "--report", path)
    assert invoke("prune", model, "--dry-run", *flags).code == 0
    written = json.loads(path.read_text())
    assert written["metric"][0].startswith("SQNR")
    assert written["macs"][0] == written["macs"][1] > 0
    assert "logits" in written["frozen"]
    invoke("prune", model, "--dry-run", *flags).fails_with(1, "report.json", "--force")


@pytest.mark.parametrize(
    ("flags", "parts"),
    [
        ((), ("say how much to prune",)),
        (("--ratio", "0.5", "--target-macs", "50%"), ("--ratio and --target-macs",)),
        (("--ratio", "1.5"), ("--ratio is 1.5",)),
        (("--target-macs", "many"), ("--target-macs 'many'",)),
        (("--max-drop", "1%"), ("--calib",)),
        (("--ratio", "0.5", "--ignore", "nothing"), ("matches no group",)),
        (("--ratio", "0.5", "--ignore", "("), ("no regular expression",)),
        (("--ratio", "0.5", "--importance", "luck"), ("luck",)),
        (("--ratio", "0.5", "--metric", "agreement"), ("--calib",)),
        (("--ratio", "0.5", "--augment", "mirror"), ("--augment", "--calib")),
        (("--ratio", "0.5", "--augment", "turn"), ("--augment 'turn'", "'mirror'")),
        (("--ratio", "0.5", "--calib", "none.npz"), ("--calib 'none.npz' does not exist",)),
        (("--target-latency", "100%"), ("--target-latency is 100%",)),
    ],
)
def test_wrong_requests(
    model: Path, invoke: Invoke, flags: tuple[str, ...], parts: tuple[str, ...]
) -> None:
    invoke("prune", model, "--dry-run", "--no-measure", *flags).fails_with(2, *parts)


def test_a_target_out_of_reach(model: Path, tmp_path: Path, invoke: Invoke) -> None:
    target = tmp_path / "small.onnx"
    done = invoke("prune", model, target, "--target-macs", "1", "--no-measure")
    done.fails_with(4, "cannot get below", "--explain")
    assert not target.exists()


def test_does_not_replace_a_file(model: Path, tmp_path: Path, invoke: Invoke) -> None:
    target = tmp_path / "small.onnx"
    target.write_bytes(b"precious")
    invoke("prune", model, target, "--ratio", "0.5").fails_with(1, "exists already")
    assert target.read_bytes() == b"precious"
