"""Questions to NVML (NVIDIA's management library), each of which may fail alone.

A question is the name of a function of the binding `nvidia-ml-py` and its arguments; the answer is plain
data, or the reason why there is none. Because questions and answers are plain, they can be recorded on one
machine and replayed on another.
"""

from __future__ import annotations

import ctypes
from collections.abc import Mapping
from dataclasses import dataclass, field
from queue import Empty, SimpleQueue
from threading import Thread
from typing import Any, Protocol

NO_MORE = frozenset({"InvalidArgument", "NotFound"})  # reasons that end an enumeration
FIELD_VALUE_TYPES = ("dVal", "uiVal", "ulVal", "ullVal", "sllVal", "siVal", "usVal")

# Functions that fill a structure of the caller: the structures to try, newest first.
STRUCTURES = {
    "nvmlDeviceGetGpuFabricInfoV": ("c_nvmlGpuFabricInfo_v3_t", "c_nvmlGpuFabricInfo_v2_t"),
    "nvmlDeviceGetGpuFabricInfo": ("c_nvmlGpuFabricInfo_t",),
}


@dataclass(frozen=True, kw_only=True)
class Gpu:
    """A device by its NVML index, or one of its MIG slices."""

    index: int
    slice: int | None = None

    def __str__(self) -> str:
        return f"gpu{self.index}" + ("" if self.slice is None else f"/{self.slice}")


@dataclass(frozen=True, kw_only=True)
class Answer:
    """The value, or the reason why there is none (the name of NVML's error)."""

    value: Any = None
    reason: str | None = None

    def number(self) -> int | None:
        """Return the value when it is a whole number."""
        return self.value if isinstance(self.value, int) and not isinstance(self.value, bool) else None

    def text(self) -> str | None:
        """Return the value when it is text with something in it."""
        return self.value.strip() or None if isinstance(self.value, str) else None

    def numbers(self) -> list[int]:
        """Return the value when it is a list of whole numbers, else an empty list."""
        values = self.value if isinstance(self.value, list) else []
        return [v for v in values if isinstance(v, int)]

    def field(self, name: str) -> Any:
        """Return a field of a structure, or None."""
        return self.value.get(name) if isinstance(self.value, dict) else None


Argument = Gpu | int | tuple[tuple[int, int], ...]


class Nvml(Protocol):
    """Something that answers questions."""

    def ask(self, function: str, *arguments: Argument) -> Answer:
        """Return the answer of one function of the binding; never raises."""


def question(function: str, arguments: tuple[Argument, ...]) -> str:
    """Write a question as text, which is its key in recordings."""
    return f"{function}({', '.join(str(a) for a in arguments)})"


@dataclass(kw_only=True)
class LiveNvml:
    """Asks the library on this machine. Ask `nvmlInit` first and `nvmlShutdown` last.

    A driver in a bad state may never answer. So a thread of its own asks; after `limit_seconds` without an
    answer, this and every further question has the reason `Timeout`.
    """

    limit_seconds: float = 20.0
    _handles: dict[Gpu, Any] = field(default_factory=dict)
    _asked: SimpleQueue[tuple[str, tuple[Argument, ...]]] = field(default_factory=SimpleQueue)
    _answered: SimpleQueue[Answer] = field(default_factory=SimpleQueue)
    _worker: Thread | None = None
    _stuck: bool = False

    def ask(self, function: str, *arguments: Argument) -> Answer:
        """Return the answer of one function; every failure becomes a reason."""
        if self._worker is None:
            # A daemon, so that a question that never ends does not keep the program from ending.
            self._worker = Thread(target=self._work, daemon=True)
            self._worker.start()
        if self._stuck:
            return Answer(reason="Timeout")
        self._asked.put((function, arguments))
        try:
            return self._answered.get(timeout=self.limit_seconds)
        except Empty:
            self._stuck = True
            return Answer(reason="Timeout")

    def _work(self) -> None:
        while True:
            function, arguments = self._asked.get()
            self._answered.put(self._call(function, arguments))

    def _call(self, function: str, arguments: tuple[Argument, ...]) -> Answer:
        try:
            import pynvml  # noqa: PLC0415 (start-up time; the wheel may be missing)
        except Exception as error:
            return Answer(reason=f"nvidia-ml-py: {error}")
        call = getattr(pynvml, function, None)
        if call is None:
            return Answer(reason="FunctionNotFound")
        # The binding raises NVMLError, and ctypes errors where binding and library differ in age.
        try:
            resolved = [self._resolve(pynvml, a) for a in arguments]
            if function in STRUCTURES:
                return self._fill(pynvml, call, STRUCTURES[function], resolved)
            return Answer(value=plain(call(*resolved)))
        except Exception as error:
            return Answer(reason=_reason(error))

    def _fill(self, binding: Any, call: Any, structures: tuple[str, ...], arguments: list[Any]) -> Answer:
        failure = Answer(reason="FunctionNotFound")
        for name in structures:
            if not hasattr(binding, name):
                continue
            structure = getattr(binding, name)()
            try:
                call(*arguments, ctypes.byref(structure))
                return Answer(value=plain(structure))
            except Exception as error:
                failure = Answer(reason=_reason(error))
                if failure.reason != "ArgumentVersionMismatch":
                    break
        return failure

    def _resolve(self, binding: Any, argument: Argument) -> Any:
        if isinstance(argument, tuple):
            return list(argument)
        if not isinstance(argument, Gpu):
            return argument
        if argument not in self._handles:
            if argument.slice is None:
                handle = binding.nvmlDeviceGetHandleByIndex(argument.index)
            else:
                parent = self._resolve(binding, Gpu(index=argument.index))
                handle = binding.nvmlDeviceGetMigDeviceHandleByIndex(parent, argument.slice)
            self._handles[argument] = handle
        return self._handles[argument]


@dataclass(frozen=True, kw_only=True)
class RecordedNvml:
    """Answers as `RecordingNvml` kept them: {question: {"value": …} or {"reason": …}}."""

    answers: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)

    def ask(self, function: str, *arguments: Argument) -> Answer:
        """Return the recorded answer; a question that was not asked then has none now."""
        kept = self.answers.get(question(function, arguments))
        if kept is None:
            return Answer(reason="NotRecorded")
        reason = kept.get("reason")
        return Answer(value=kept.get("value"), reason=None if reason is None else str(reason))


@dataclass(frozen=True, kw_only=True)
class RecordingNvml:
    """Passes questions on to `source` and keeps every answer."""

    source: Nvml
    answers: dict[str, dict[str, Any]] = field(default_factory=dict)

    def ask(self, function: str, *arguments: Argument) -> Answer:
        """Return and keep the answer."""
        answer = self.source.ask(function, *arguments)
        kept = {"value": answer.value} if answer.reason is None else {"reason": answer.reason}
        self.answers[question(function, arguments)] = kept
        return answer


def plain(value: Any) -> Any:
    """Return what the binding gave as numbers, text, lists and dictionaries."""
    if isinstance(value, bytes):
        return value.split(b"\0", 1)[0].decode("utf-8", "replace")
    if isinstance(value, ctypes.Structure):
        if hasattr(value, "nvmlReturn") and hasattr(value, "valueType"):
            return _field_value(value)
        return {entry[0]: plain(getattr(value, entry[0])) for entry in value._fields_}
    if isinstance(value, ctypes.Array | list | tuple):
        return [plain(item) for item in value]
    if isinstance(value, bool | int | float | str) or value is None:
        return value
    return str(value)


def _field_value(value: Any) -> int | float | None:
    """Return one answer of `nvmlDeviceGetFieldValues`, which carries a success code of its own."""
    if value.nvmlReturn != 0 or not 0 <= value.valueType < len(FIELD_VALUE_TYPES):
        return None
    result: int | float = getattr(value.value, FIELD_VALUE_TYPES[value.valueType])
    return result


def _reason(error: Exception) -> str:
    name = type(error).__name__
    return name.removeprefix("NVMLError_") if name.startswith("NVMLError_") else f"{name}: {error}"
