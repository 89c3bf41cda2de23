"""What runs on every node of `cuboid probe --on slurm`: probe it and send the result home through srun.

The answer travels as lines, since srun passes standard output on by the line and shortens long ones:

    cuboid-probe NODE begin
    cuboid-probe NODE 1/3 BASE64…        compressed JSON in pieces
"""

from __future__ import annotations

import argparse
import base64
import json
import os
import signal
import socket
import sys
import zlib

from planner.probe import probe
from profiles.cluster import ClusterSpec
from profiles.documents import plain

MARK = "cuboid-probe"
PIECE_CHARACTERS = 600
MAX_ANSWER_BYTES = 64 << 20
LIMIT_SECONDS = 60  # a driver that hangs must not hold up the other nodes


def node_name() -> str:
    """Return the node's name as SLURM knows it, else the host's."""
    return os.environ.get("SLURMD_NODENAME") or socket.gethostname()


def encode(node: str, cluster: ClusterSpec) -> list[str]:
    """Return the lines that carry one node's answer."""
    answer = {"cluster": plain(cluster), "switches": _switch_path()}
    packed = base64.b64encode(zlib.compress(json.dumps(answer).encode())).decode()
    pieces = [packed[i : i + PIECE_CHARACTERS] for i in range(0, len(packed), PIECE_CHARACTERS)]
    return [f"{MARK} {node} {i + 1}/{len(pieces)} {piece}" for i, piece in enumerate(pieces)]


def _switch_path() -> str | None:
    """Return `spine.leaf` above this node where SLURM has a tree configured, else None."""
    address = os.environ.get("SLURM_TOPOLOGY_ADDR", "").split(".")
    pattern = os.environ.get("SLURM_TOPOLOGY_ADDR_PATTERN", "").split(".")
    names = [name for name, kind in zip(address, pattern, strict=False) if kind == "switch"]
    return ".".join(names) or None


def main() -> None:
    """Probe this node and print the answer."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--ranks", type=int)
    parser.add_argument("--device")
    options = parser.parse_args()
    node = node_name()
    sys.stdout.write(f"{MARK} {node} begin\n")
    sys.stdout.flush()
    signal.alarm(LIMIT_SECONDS)
    cluster = probe(ranks=options.ranks, device=options.device)
    sys.stdout.write("\n".join(encode(node, cluster)) + "\n")


if __name__ == "__main__":
    main()
