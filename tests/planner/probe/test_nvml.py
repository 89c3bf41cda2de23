"""Questions and answers: the live binding, recordings, and what is plain data."""

from __future__ import annotations

import ctypes
import json
import os
import subprocess
import sys

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from planner.probe import probe
from planner.probe.nvml import Gpu, LiveNvml, RecordedNvml, RecordingNvml, plain, question
from planner.probe.sentence import describe_node

UNKNOWN_ANSWERS = [
    "!1",
    "!3",
    "!4",
    "!9",
    "!13",
    "!15",
    "!16",
    "!25",
    "!999",
    "4294967295",
    "not a number",
    "",
]


def test_questions_as_text():
    assert question("nvmlInit", ()) == "nvmlInit()"
    asked = (Gpu(index=0), Gpu(index=1, slice=2), 2, ((91, 0),))
    assert question("f", asked) == "f(gpu0, gpu1/2, 2, ((91, 0),))"


def test_answers_of_the_binding_are_plain_data(boxes):
    nvml = boxes.nvl72().sources().nvml
    gpu = Gpu(index=1)
    assert nvml.ask("nvmlInit").reason is None
    assert nvml.ask("nvmlDeviceGetName", gpu).text() == "NVIDIA GB200"
    assert nvml.ask("nvmlDeviceGetMemoryInfo", gpu).field("total") == 198674743296
    assert nvml.ask("nvmlDeviceGetCudaComputeCapability", gpu).numbers() == [10, 0]
    assert nvml.ask("nvmlDeviceGetPciInfo", gpu).field("busId") == "00000000:20:00.0"
    # A field that has no value fails alone; the whole call succeeds.
    fields = nvml.ask("nvmlDeviceGetFieldValues", gpu, ((91, 0), (230, 0)))
    assert fields.value == [18, None]
    fabric = nvml.ask("nvmlDeviceGetGpuFabricInfoV", gpu)
    assert bytes(fabric.field("clusterUuid")).hex() == "a1b2c3d4e5f60718293a4b5c6d7e8f90"


@pytest.mark.parametrize(
    ("function", "arguments", "reason"),
    [
        ("nvmlDeviceGetSerial", (Gpu(index=0),), "FunctionNotFound"),  # not in this library
        ("nvmlInventedYesterday", (), "FunctionNotFound"),  # not in this binding
        ("nvmlDeviceGetPowerUsage", (Gpu(index=0),), "FunctionNotFound"),
        ("nvmlDeviceGetMaxMigDeviceCount", (Gpu(index=0),), "NotSupported"),
    ],
)
def test_failures_are_reasons(boxes, function, arguments, reason):
    nvml = boxes.hgx_h100().sources().nvml
    nvml.ask("nvmlInit")
    assert nvml.ask(function, *arguments).reason == reason


def test_wrong_arguments_are_a_reason_too(boxes):
    """The binding's NVML_P2P_CAPS_INDEX_READ is a tuple by mistake; passing such a thing must not raise."""
    nvml = boxes.hgx_h100().sources().nvml
    nvml.ask("nvmlInit")
    answer = nvml.ask("nvmlDeviceGetP2PStatus", Gpu(index=0), Gpu(index=1), ((0, 0),))
    assert "ArgumentError" in answer.reason


def test_library_that_is_missing_is_a_reason():
    """In a process of its own, where nothing has loaded a stand-in."""
    code = "from planner.probe.nvml import LiveNvml; print(LiveNvml().ask('nvmlInit').reason)"
    environment = {**os.environ, "LD_LIBRARY_PATH": "/nonexistent"}
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() in {"LibraryNotFound", "None", "DriverNotLoaded"}


def test_recordings_answer_alike(boxes):
    live = RecordingNvml(source=boxes.hgx_h100().sources().nvml)
    asked = [
        ("nvmlInit", ()),
        ("nvmlDeviceGetName", (Gpu(index=0),)),
        ("nvmlDeviceGetName", (Gpu(index=99),)),
    ]
    asked.append(("nvmlDeviceGetP2PStatus", (Gpu(index=0), Gpu(index=1), 2)))
    answers = [live.ask(function, *arguments) for function, arguments in asked]
    recorded = RecordedNvml(answers=json.loads(json.dumps(live.answers)))
    assert [recorded.ask(function, *arguments) for function, arguments in asked] == answers
    assert recorded.ask("nvmlDeviceGetUUID", Gpu(index=0)).reason == "NotRecorded"


def test_structures_become_dictionaries():
    class Inner(ctypes.Structure):
        _fields_ = [("text", ctypes.c_char * 8), ("numbers", ctypes.c_uint8 * 3)]

    inner = Inner(text=b"ab\xff", numbers=(1, 2, 3))
    assert plain(inner) == {"text": "ab\ufffd", "numbers": [1, 2, 3]}
    assert plain((1, 2.5, None, b"x\0y", True)) == [1, 2.5, None, "x", True]


def test_live_source_without_init_never_raises():
    answer = LiveNvml().ask("nvmlDeviceGetCount")
    assert answer.reason is not None or answer.number() is not None


def test_any_question_may_fail_alone(boxes):
    """Answers are missing, errors or nonsense, in any combination: the probe degrades, never raises."""
    box = boxes.pairs((0, 1), (2, 3))
    keys = sorted(box.profile())

    @settings(max_examples=40, deadline=None)
    @given(data=st.data())
    def check(data):
        spoilt = data.draw(st.lists(st.sampled_from(keys), max_size=25, unique=True))
        box.overrides = {key: data.draw(st.sampled_from([None, *UNKNOWN_ANSWERS])) for key in spoilt}
        cluster = probe(sources=box.sources())
        assert cluster.devices >= 1
        assert cluster.device.memory_bytes > 0
        describe_node(cluster.topology.node)

    check()


def test_one_question_of_every_kind_missing(boxes):
    """Without any answer of one function, whichever it is, the devices stay and nothing raises."""
    box = boxes.pairs((0, 1), (2, 3))
    profile = box.profile()
    for function in sorted({key.split()[0] for key in profile} - {"nvmlDeviceGetCount"}):
        box.overrides = {key: "!13" for key in profile if key.split()[0] == function}
        cluster = probe(sources=box.sources())
        assert cluster.devices_per_node == 4, function


def test_under_the_dynamic_linker_as_users_have_it(boxes, fake_nvml):
    """A fresh process that finds the library by its path, no preloading."""
    box = boxes.hgx_h100()
    box.sources()
    entry = "from launcher.entry import entry; entry()"
    words = [sys.executable, "-c", entry, "probe", "--root", str(box.tree.root)]
    environment = {
        "LD_LIBRARY_PATH": str(fake_nvml.parent),
        "FAKE_NVML_PROFILE": str(box.tree.root / "nvml-profile.txt"),
        "PATH": "/usr/bin:/bin",
    }
    done = subprocess.run(words, env=environment, capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[0].startswith("8 × H100, all-to-all NVLink through 4 NVSwitches")


def test_stand_in_is_the_library_the_binding_loads(boxes, fake_nvml):
    """Guards the other tests: a real driver on this machine must not answer in the stand-in's place."""
    assert ctypes.CDLL("libnvidia-ml.so.1").nvmlErrorString is not None
    box = boxes.hgx_h100()
    box.overrides["nvmlSystemGetDriverVersion"] = "stand-in"
    assert probe(sources=box.sources()).topology.node.driver == "stand-in"
