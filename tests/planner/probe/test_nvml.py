"""Questions and answers: the live binding, recordings, and what is plain data."""

from __future__ import annotations

import ctypes
import json
import os
import subprocess
import sys

import pytest

from planner.probe.nvml import Gpu, LiveNvml, RecordedNvml, RecordingNvml, plain, question


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
