"""Every fault several times on the mini-cluster, and how long each took to end as the policy says.

    python tests/benchmarks/slurm_faults.py [--rounds 5] [--only crashed] [--trainer runtime]

Needs what tests/launcher/slurm needs: root, and SLURM from Debian's packages. The seconds run from the fault
to the first step of the next attempt, or to the end of a job that has to stay down; for what the pre-flight
finds, from the submission. Each has a stated limit, and one that takes longer fails.
--trainer runtime takes the real trainer, with torch over gloo, instead of the stand-in of the tests.
"""

from __future__ import annotations

import argparse
import os
import re
import subprocess
import sys
import tempfile
from collections import defaultdict
from pathlib import Path
from statistics import median
from xml.etree import ElementTree

ROOT = Path(__file__).parents[2]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--only", default="", help="faults whose name holds this")
    parser.add_argument("--trainer", choices=("stand-in", "runtime"), default="stand-in")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder) / "report.xml"
        command = [sys.executable, "-m", "pytest", "-q", "-p", "no:rerunfailures"]
        command += ["-o", "junit_family=xunit1", f"--junitxml={report}"]
        command += ["tests/launcher/slurm/test_faults.py", "tests/launcher/slurm/test_cluster_preflight.py"]
        command += ["-k", options.only] if options.only else []
        environment = {**os.environ, "CUBOID_FAULT_ROUNDS": str(options.rounds)}
        environment["CUBOID_FAULT_TRAINER"] = options.trainer
        code = subprocess.run(command, cwd=ROOT, env=environment, check=False).returncode
        tree = ElementTree.parse(report)
    print_table(tree)
    return code


def print_table(tree: ElementTree.ElementTree[ElementTree.Element]) -> None:
    times: dict[str, list[float]] = defaultdict(list)
    limits: dict[str, float] = {}
    runs: dict[str, int] = defaultdict(int)
    passed: dict[str, int] = defaultdict(int)
    for case in tree.iter("testcase"):
        name = re.sub(r"\[\d+-?(.*)\]", r" \1", case.get("name", "")).strip()
        found = {item.get("name", ""): float(item.get("value", "nan")) for item in case.iter("property")}
        if case.find("failure") is None and "limit_seconds" not in found:
            continue  # not a fault
        runs[name] += 1
        passed[name] += case.find("failure") is None and case.find("error") is None
        if "seconds" in found:
            times[name].append(found["seconds"])
            limits[name] = found["limit_seconds"]
    print(f"{'fault':46} {'as the policy says':>18} {'median':>8} {'slowest':>8} {'limit':>7}")
    for name, count in runs.items():
        share = f"{passed[name]} of {count}"
        spread = f"{median(times[name]):7.1f}s {max(times[name]):7.1f}s" if times[name] else ""
        print(f"{name:46} {share:>18} {spread} {limits.get(name, float('nan')):6.0f}s")


if __name__ == "__main__":
    raise SystemExit(main())
