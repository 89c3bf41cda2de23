"""The software era of a record: what its words decide, and that nothing else does."""

from typing import Any

import pytest

from planner.validate_software import precision_of, software_of


def record(**training: Any) -> dict[str, Any]:
    return {"training": {"flash_attention": False, **training}, "cluster": {"gpu": "A100"}}


@pytest.mark.parametrize(
    ("data", "remarks", "name"),
    [
        (record(), "", "materialised"),
        (record(framework="Megatron-DeepSpeed"), "", "deepspeed"),
        (record(schedule="1F1B (DeepSpeed)"), "", "deepspeed"),
        (record(), "Framework: Megatron-DeepSpeed.", "deepspeed"),
        (record() | {"source": "bigscience-workshop/bigscience@9e64edec"}, "", "deepspeed"),
        (record(flash_attention=True, framework="Megatron-DeepSpeed"), "", "modern"),
        (record(flash_attention=True, torch_compile=True), "", "compiled"),
        (record(flash_attention=True) | {"parallelism": {"zero_stage": "FSDP"}}, "", "sharded"),
        ({"cluster": {"gpu": "H100-SXM5-80GB"}}, "", "modern"),
        ({"cluster": {"gpu": "V100-16GB"}}, "", "materialised"),
    ],
)
def test_words_decide_the_era(data: dict[str, Any], remarks: str, name: str) -> None:
    assert software_of(data, [], remarks=remarks)[0].name == name


def test_a_project_whose_scripts_block_on_every_kernel_says_so() -> None:
    assumed: list[str] = []
    source = record(schedule="1F1B (DeepSpeed)") | {"source": "bigscience-workshop/bigscience@9e64edec"}
    assert software_of(source, assumed)[0].synchronous
    assert any("CUDA_LAUNCH_BLOCKING" in text for text in assumed)
    stated = record(launch_blocking=False) | {"source": source["source"]}
    assert not software_of(stated, [])[0].synchronous
    assert software_of(record(launch_blocking=True), [])[0].synchronous
    assert not software_of(record(), [])[0].synchronous


def test_flat_copies_of_gradients_are_those_of_a_named_framework() -> None:
    assert software_of(record(), [])[0].buffer_bytes == 0
    assert software_of(record(framework="DeepSpeed"), [])[0].buffer_bytes == 2
    project = record(schedule="no pipeline") | {"source": "bigscience-workshop/bigscience@9e64edec"}
    assert software_of(project, [])[0].buffer_bytes == 2
    accumulated = record(framework="DeepSpeed", grad_accumulation="fp32")
    assert software_of(accumulated, [])[0].buffer_bytes == 4
    assert software_of(record() | {"source": "huggingface/nanotron@2411b022"}, [])[0].buffer_bytes == 2


@pytest.mark.parametrize(
    ("data", "sizes"),
    [
        (record(precision="fp16"), (2, 2, 6)),
        (record(precision="bf16"), (4, 4, 10)),
        (record(precision="bf16", framework="Megatron-DeepSpeed"), (4, 2, 10)),
        (record(precision="fp16", grad_accumulation="fp32", framework="DeepSpeed"), (4, 4, 10)),
    ],
)
def test_accumulating_a_gradient_reads_it_and_reads_and_writes_the_sum(
    data: dict[str, Any], sizes: tuple[int, int, float]
) -> None:
    """(Bytes of the sum, bytes on the network, traffic of one addition.)"""
    software = software_of(data, [])[0]
    assert (software.gradient_bytes, software.reduce_bytes, software.accumulate_bytes) == sizes


def test_an_optimizer_that_broadcasts_is_that_of_a_named_framework() -> None:
    source = {"source": "InternLM/InternEvo@c628a8c", "parallelism": {"zero_stage": "over 8 ranks"}}
    software = software_of(record(flash_attention=True) | source, [])[0]
    assert (software.broadcasts, software.zero_group) == (True, 8)
    assert not software_of(record(flash_attention=True), [])[0].broadcasts


def test_precisions() -> None:
    words = {
        "bf16": "bf16",
        "fp16 mixed": "fp16",
        "fp16/bf16 mixed (not stated which)": "fp16",
        "tf32": "tf32",
        "float32": "fp32",
        "": "bf16",
    }
    assert {text: precision_of(text) for text in words} == words


@pytest.mark.parametrize(
    ("gpu", "flash"), [("H20 96GB", True), ("L40S", True), ("MI355X", True), ("A100", False), ("T4", False)]
)
def test_a_device_tells_the_attention_that_a_record_does_not(gpu, flash):
    assumed: list[str] = []
    software, _ = software_of({"training": {}, "cluster": {"gpu": gpu}}, assumed)
    assert software.flash_attention == flash
    assert f"{'flash' if flash else 'materialised'} attention" in assumed
