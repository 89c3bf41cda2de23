"""A snapshot replays to the cluster that was probed."""

from __future__ import annotations

import pytest

from planner.probe.files import LiveFiles, RecordedFiles, RecordingFiles
from planner.probe.machine import live_sources
from planner.probe.snapshot import Snapshot, record_probe, replay
from profiles.documents import dump_yaml, parse_yaml, plain


@pytest.mark.parametrize("name", ["hgx_h100", "dgx1", "nvl72", "rtx4090", "mig"])
def test_replay_gives_what_was_probed(boxes, name):
    cluster, snapshot = record_probe(sources=getattr(boxes, name)().sources())
    read_back = parse_yaml(dump_yaml(plain(snapshot))).read(Snapshot)
    assert replay(read_back) == cluster


def test_failures_are_replayed_too(boxes):
    box = boxes.hgx_h100()
    box.overrides |= {"nvmlInit": "!18"}
    cluster, snapshot = record_probe(sources=box.sources())
    assert snapshot.nvml["nvmlInit()"] == {"reason": "LibRmVersionMismatch"}
    assert replay(snapshot) == cluster


def test_this_machine_replays():
    cluster, snapshot = record_probe(ranks=3, sources=live_sources())
    assert replay(snapshot, ranks=3) == cluster


def test_empty_snapshot_is_a_machine_of_which_nothing_is_known():
    assert replay(Snapshot()).device.vendor == "cpu"


def test_recorded_files_answer_alike(tree):
    tree.write("/a/b", "text")
    tree.link("/c", "/a/b")
    recording = RecordingFiles(source=LiveFiles(root=tree.root))
    asked = [(f, p) for f in ("text", "names", "target") for p in ("/a", "/a/b", "/c", "/missing")]
    answers = [getattr(recording, f)(p) for f, p in asked]
    recorded = RecordedFiles(texts=recording.texts, folders=recording.folders, targets=recording.targets)
    assert [getattr(recorded, f)(p) for f, p in asked] == answers
    assert recording.target("/c") == "/a/b"


def test_links_out_of_the_tree_are_not_followed(tree, tmp_path_factory):
    outside = tmp_path_factory.mktemp("outside") / "file"
    outside.write_text("secret")
    (tree.root / "way-out").symlink_to(outside)
    assert LiveFiles(root=tree.root).target("/way-out") is None
