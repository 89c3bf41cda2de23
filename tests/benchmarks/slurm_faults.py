"""Every fault several times on the mini-cluster, and how long each took to end as the policy says.

    python tests/benchmarks/slurm_faults.py [--rounds 5] [--only crashed]

Needs what tests/launcher/slurm needs: root, and SLURM from Debian's packages. The seconds are from the start
of a test to its end: submission, five steps, the fault, and what the policy does then. The stated limit of
each is the time-out inside its test; a fault that takes longer fails.
--trainer runtime takes the real trainer instead of the stand-in of the tests.
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
        command = [sys.executable, "-m", "pytest", "-q", f"--junitxml={report}"]
        command += ["tests/launcher/slurm/test_faults.py", "tests/launcher/slurm/test_cluster_preflight.py"]
        command += ["-k", options.only] if options.only else []
        environment = {**os.environ, "CUBOID_FAULT_ROUNDS": str(options.rounds)}
        environment["CUBOID_FAULT_TRAINER"] = options.trainer
        code = subprocess.run(command, cwd=ROOT, env=environment, check=False).returncode
        tree = ElementTree.parse(report)
    seconds: dict[str, list[float]] = defaultdict(list)
    passed: dict[str, int] = defaultdict(int)
    for case in tree.iter("testcase"):
        name = re.sub(r"-?\d+\]$", "]", case.get("name", "")).replace("[]", "")
        seconds[name].append(float(case.get("time", "0")))
        passed[name] += case.find("failure") is None and case.find("error") is None
    print(f"{'fault':52} {'as the policy says':>18} {'median':>8} {'slowest':>8}")
    for name, times in seconds.items():
        share = f"{passed[name]} of {len(times)}"
        print(f"{name:52} {share:>18} {median(times):7.1f}s {max(times):7.1f}s")
    return code


if __name__ == "__main__":
    raise SystemExit(main())
