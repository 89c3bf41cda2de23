"""The optimizer against torch's and a hand-written recurrence; the global norm against one process."""

from __future__ import annotations

import math

import pytest
import torch
import torch.distributed as dist
from torch.nn.utils import clip_grad_norm_

from planner.job import OptimizerSpec
from profiles.model import ModelSpec
from runtime.models import build_stage
from runtime.optimizer import Optimizer, clip_by_global_norm, counted_once
from runtime.tensor_parallel import TensorParallel

SPEC = ModelSpec(layers=2, hidden=32, heads=4, vocab=50, seq_len=12)


def parameters(dtype=torch.float64) -> dict[str, torch.nn.Parameter]:
    torch.manual_seed(0)
    shapes = {"blocks.0.mlp.up.weight": (7, 5), "blocks.0.mlp.up.bias": (7,), "head.norm.weight": (5,)}
    return {name: torch.nn.Parameter(torch.randn(shape).to(dtype)) for name, shape in shapes.items()}


def give_gradients(ours: dict[str, torch.nn.Parameter], step: int) -> None:
    generator = torch.Generator().manual_seed(step)
    for parameter in ours.values():
        parameter.grad = torch.randn(parameter.shape, generator=generator, dtype=torch.float64).to(
            parameter.dtype
        )


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_adamw_equals_torch_and_the_paper(dtype):
    spec = OptimizerSpec(beta1=0.8, beta2=0.9, epsilon=1e-6, weight_decay=0.3)
    ours, theirs, paper = parameters(dtype), parameters(dtype), parameters(torch.float64)
    optimizer = Optimizer(spec, ours)
    reference = torch.optim.AdamW(
        [
            {"params": [p for p in theirs.values() if p.dim() == 2], "weight_decay": 0.3},
            {"params": [p for p in theirs.values() if p.dim() == 1], "weight_decay": 0.0},
        ],
        betas=(0.8, 0.9),
        eps=1e-6,
        foreach=False,
        fused=False,
    )
    first = {name: torch.zeros_like(p) for name, p in paper.items()}
    second = {name: torch.zeros_like(p) for name, p in paper.items()}
    for step, rate in enumerate((0.1, 0.3, 0.02), start=1):
        for each in (ours, theirs, paper):
            give_gradients(each, step)
        optimizer.step(rate)
        for group in reference.param_groups:
            group["lr"] = rate
        reference.step()
        with torch.no_grad():
            for name, p in paper.items():
                first[name] = 0.8 * first[name] + 0.2 * p.grad
                second[name] = 0.9 * second[name] + 0.1 * p.grad**2
                mean, variance = first[name] / (1 - 0.8**step), second[name] / (1 - 0.9**step)
                decay = 0.3 if p.dim() == 2 else 0.0
                p.sub_(rate * (mean / (variance.sqrt() + 1e-6) + decay * p))
    accuracy = {"rtol": 1e-12, "atol": 1e-13} if dtype == torch.float64 else {"rtol": 2e-6, "atol": 1e-6}
    for name in ours:
        torch.testing.assert_close(ours[name], theirs[name], **accuracy)
        torch.testing.assert_close(ours[name].double(), paper[name], **accuracy)
        torch.testing.assert_close(
            optimizer.state_dict()[f"second_moment.{name}"].double(), second[name], **accuracy
        )


def test_sgd_is_one_line():
    ours = parameters()
    before = {name: p.detach().clone() for name, p in ours.items()}
    give_gradients(ours, 1)
    Optimizer(OptimizerSpec(name="sgd", weight_decay=0.0), ours).step(0.25)
    for name, parameter in ours.items():
        torch.testing.assert_close(parameter.detach(), before[name] - 0.25 * parameter.grad)


@pytest.mark.parametrize("name", ["adamw", "sgd"])
def test_state_carries_over_bit_for_bit(name):
    spec = OptimizerSpec(name=name)
    ours = parameters()
    optimizer = Optimizer(spec, ours)
    assert optimizer.state_dict().keys() == Optimizer(spec, parameters()).state_dict().keys()
    for step in range(2):
        give_gradients(ours, step)
        optimizer.step(0.1)
    saved = {name: tensor.clone() for name, tensor in optimizer.state_dict().items()}
    copies = {name: torch.nn.Parameter(p.detach().clone()) for name, p in ours.items()}
    resumed = Optimizer(spec, copies)
    resumed.load_state_dict(saved)
    assert resumed.steps == 2
    for each, parameters_ in ((optimizer, ours), (resumed, copies)):
        give_gradients(parameters_, 9)
        each.step(0.1)
    for name_, parameter in ours.items():
        assert torch.equal(parameter, copies[name_])


def test_foreign_state_is_refused():
    optimizer = Optimizer(OptimizerSpec(), parameters())
    state = optimizer.state_dict()
    with pytest.raises(ValueError, match="first_moment"):
        optimizer.load_state_dict({n: t for n, t in state.items() if n != "first_moment.head.norm.weight"})
    with pytest.raises(ValueError, match="shape"):
        optimizer.load_state_dict(state | {"first_moment.head.norm.weight": torch.zeros(3)})


def build(tp: TensorParallel, layers: range, *, first: bool, last: bool):
    return build_stage(
        SPEC,
        layers=layers,
        first=first,
        last=last,
        tp=tp,
        seed=1,
        dtype=torch.float64,
        device=torch.device("cpu"),
    )


@pytest.mark.parametrize("max_norm", [None, 0.5, 1e6])
def test_norm_over_tp_and_pp_and_ties_equals_one_process(run_ranks, max_norm):
    whole = dict(build(TensorParallel(), range(2), first=True, last=True).named_parameters())
    for index, parameter in enumerate(whole.values()):
        generator = torch.Generator().manual_seed(index)
        parameter.grad = torch.randn(parameter.shape, generator=generator, dtype=torch.float64)
    full = {name: p.grad.clone() for name, p in whole.items()}
    limit = math.inf if max_norm is None else max_norm
    expected = clip_grad_norm_(whole.values(), limit).item()

    def run() -> tuple[float, dict[str, torch.Tensor], TensorParallel]:
        # Ranks 0 and 1 share the first stage, ranks 2 and 3 the second.
        rank = dist.get_rank()
        tp_groups = [dist.new_group([0, 1]), dist.new_group([2, 3])]
        pp_groups = [dist.new_group([0, 2]), dist.new_group([1, 3])]
        stage_index, tp_rank = divmod(rank, 2)
        tp = TensorParallel(group=tp_groups[stage_index], rank=tp_rank, size=2)
        stage = build(tp, range(stage_index, stage_index + 1), first=stage_index == 0, last=stage_index == 1)
        ours = dict(stage.named_parameters())
        for name, parameter in ours.items():
            parameter.grad = stage.shards()[name].local(full[name], tp).clone()
        norm = clip_by_global_norm(
            ours,
            counted=counted_once([stage], tp),
            groups=[tp_groups[stage_index], pp_groups[tp_rank]],
            max_norm=max_norm,
        )
        shares = {name: (stage.shards()[name], p.grad) for name, p in ours.items()}
        return norm, shares, TensorParallel(rank=tp_rank, size=2)

    for norm, shares, tp in run_ranks(4, run):
        assert norm == pytest.approx(expected, rel=1e-14)
        for name, (shard, gradient) in shares.items():
            wanted = shard.local(whole[name].grad, tp)
            torch.testing.assert_close(gradient, wanted, rtol=1e-13, atol=1e-15)


def test_both_ends_of_a_tie_on_one_rank_count_once():
    tp = TensorParallel()
    first, last = build(tp, range(1), first=True, last=False), build(tp, range(1, 2), first=False, last=True)
    assert counted_once([last], tp) == {
        n for n, _ in last.named_parameters() if not n.startswith("embedding")
    }
    assert counted_once([first, last], tp) == {
        n for stage in (first, last) for n, _ in stage.named_parameters()
    }


def test_a_rank_without_gradients_takes_part():
    assert clip_by_global_norm({}, counted=(), groups=(), max_norm=1.0) == 0.0


def low_precision() -> torch.nn.Parameter:
    parameter = torch.nn.Parameter(torch.ones(2, 2, dtype=torch.bfloat16))
    parameter.grad_dtype = torch.float32
    return parameter


def test_updates_too_small_for_bf16_add_up():
    parameter = low_precision()
    optimizer = Optimizer(OptimizerSpec(name="sgd", weight_decay=0.0), {"w": parameter})
    for _ in range(100):
        parameter.grad = torch.full((2, 2), 1.0)
        optimizer.step(1e-4)  # bf16 knows nothing between 1 and 1 − 1/256
    torch.testing.assert_close(optimizer.state_dict()["master.w"], torch.full((2, 2), 0.99))
    assert torch.equal(parameter, torch.full((2, 2), 0.99).bfloat16())


def test_masters_carry_over():
    parameter, fresh = low_precision(), low_precision()
    optimizer, resumed = (Optimizer(OptimizerSpec(), {"w": each}) for each in (parameter, fresh))
    parameter.grad = torch.full((2, 2), 1.0)
    optimizer.step(1e-2)
    assert optimizer.state_dict().keys() == {"steps", "master.w", "first_moment.w", "second_moment.w"}
    resumed.load_state_dict(optimizer.state_dict())
    assert torch.equal(fresh, parameter)
    for each, weight in ((optimizer, parameter), (resumed, fresh)):
        weight.grad = torch.full((2, 2), -0.3)
        each.step(1e-3)
    assert torch.equal(optimizer.state_dict()["master.w"], resumed.state_dict()["master.w"])
    assert not torch.equal(optimizer.state_dict()["master.w"], parameter.float())
