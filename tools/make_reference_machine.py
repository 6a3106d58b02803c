"""Measure the reference machine that is shipped: `python tools/make_reference_machine.py`.

    python tools/make_reference_machine.py [--seconds 660] [--keep FILE] [--processor NAME]

A calibration like any other, but long: what it finds out about kernels is what the minute elsewhere
starts from. Nothing else should run meanwhile. What was measured is kept in a file; where that is
there, it is fitted anew. The name of the machine changes with the contents, so that profiles which
correct another one are told from those that correct this one.
"""

import argparse
import gzip
import hashlib
import pickle
import sys
from dataclasses import replace
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))


def main() -> int:
    from graphopt.cost.latency.calibration import fit_machine, measure_samples
    from graphopt.cost.latency.reference import PATH

    parser = argparse.ArgumentParser(description="Measure the reference machine.")
    parser.add_argument("--seconds", type=float, default=660.0)
    parser.add_argument("--keep", type=Path, default=ROOT / "build" / "latency" / "reference.pkl")
    parser.add_argument("--processor", default="", help="what to call it")
    arguments = parser.parse_args()
    if not arguments.keep.is_file():
        found = measure_samples([], arguments.seconds, 0, print)
        arguments.keep.parent.mkdir(parents=True, exist_ok=True)
        arguments.keep.write_bytes(pickle.dumps(found))
    found = pickle.loads(arguments.keep.read_bytes())
    machine = fit_machine(found, "reference", alone=True, tell=print)
    machine = replace(machine, processor=arguments.processor or machine.processor)
    digest = hashlib.sha256(machine.to_json().encode()).hexdigest()[:8]
    text = replace(machine, name=f"reference {digest}").to_json()
    PATH.write_bytes(gzip.compress(text.encode(), 9, mtime=0))
    samples = sum(len(c.targets) for fit in machine.threads.values() for c in fit.classes.values())
    print(f"{samples} samples, {PATH.stat().st_size / 1e3:.0f} kB")
    return 0


if __name__ == "__main__":
    sys.exit(main())
