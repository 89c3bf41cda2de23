"""The pipeline against one process, in fp64: losses, gradients and parameters on every layout.

The reference runs the whole global batch at once through one stage and plain torch.optim.
"""

from __future__ import annotations

import itertools
import os
import random

import pytest
import torch

from planner.job import OptimizerSpec
from planner.layout import Layout
from planner.schedules import FAMILIES, ScheduleError, build
from profiles.model import ModelSpec
from runtime.data_parallel import GradientReducer
from runtime.executor import StepData
from runtime.mesh import build_mesh, local_device
from runtime.models import build_stage
from runtime.optimizer import Optimizer, clip_by_global_norm, counted_once
from runtime.pipeline import build_pipeline, lowered_schedule, message_edges
from runtime.recorder import Recorder
from runtime.tensor_parallel import TensorParallel
from runtime.ties import Tie

ADAMW = OptimizerSpec(learning_rate=1e-2, epsilon=1e-5, clip_norm=0.05)
SGD = OptimizerSpec(name="sgd", learning_rate=0.5, weight_decay=0.0, clip_norm=None)


def model(**changes):
    fields = {"layers": 4, "hidden": 8, "heads": 2, "vocab": 13, "seq_len": 6} | changes
    return ModelSpec(**fields)


def global_batch(spec, sequences, step=0):
    """Tokens and targets [sequences, seq]; sequences differ in valid targets, some have none."""
    generator = torch.Generator().manual_seed(step)
    tokens = torch.randint(spec.vocab, (sequences, spec.seq_len), generator=generator)
    targets = torch.randint(spec.vocab, (sequences, spec.seq_len), generator=generator)
    for i in range(sequences):
        targets[i, : i % (spec.seq_len + 1)] = -100
    return tokens, targets


def reference(spec, sequences, steps=1):
    """Loss and gradients of the first step, and the parameters after `steps`, of one process."""
    stage = build_stage(
        spec,
        layers=range(spec.layers),
        first=True,
        last=True,
        tp=TensorParallel(),
        seed=1,
        dtype=torch.float64,
        device=torch.device("cpu"),
    )
    named = dict(stage.named_parameters())
    decayed = [{"params": [p], "weight_decay": 0.1 if p.dim() > 1 else 0.0} for p in named.values()]
    optimizer = torch.optim.AdamW(decayed, lr=1e-2, betas=(0.9, 0.95), eps=1e-5)
    first = None
    for step in range(steps):
        tokens, targets = global_batch(spec, sequences, step)
        optimizer.zero_grad()
        loss = stage(tokens, targets) / (targets != -100).sum()
        loss.backward()
        first = first or (loss.item(), {name: p.grad.clone() for name, p in named.items()})
        norm = torch.nn.utils.clip_grad_norm_(named.values(), ADAMW.clip_norm)
        assert norm > 2 * ADAMW.clip_norm, "the clip must bite"
        optimizer.step()
    return (*first, {name: p.detach() for name, p in named.items()})


def start(spec, layout):
    lowered = lowered_schedule(layout)
    mesh = build_mesh(
        layout, placement=lowered.schedule.placement, device=local_device(0), edges=message_edges(lowered)
    )
    return build_pipeline(spec, layout, mesh=mesh, lowered=lowered, seed=1, recorder=Recorder())


def step_data(spec, layout, mesh, step=0):
    tokens, targets = global_batch(spec, layout.global_batch, step)
    valid = int((targets != -100).sum())
    shape = (layout.dp, layout.microbatches, layout.microbatch, spec.seq_len)
    return StepData(
        tokens=tokens.view(shape)[mesh.dp.rank], targets=targets.view(shape)[mesh.dp.rank], valid_tokens=valid
    )


def run_steps(spec, layout, steps=1):
    """Run on this rank; return its place, loss, gradients of the first step and parameters after the last."""
    pipeline = start(spec, layout)
    mesh = pipeline.mesh
    parameters = {name: p for name, p, _ in pipeline.parameters()}
    dims = {name: shard.dim for name, _, shard in pipeline.parameters()}
    optimizer = Optimizer(ADAMW, parameters)
    tp = TensorParallel(group=mesh.tp.group, rank=mesh.tp.rank, size=mesh.tp.size)
    first = None
    for step in range(steps):
        data = step_data(spec, layout, mesh, step)
        losses = pipeline.gradients(data)
        loss = sum(value.item() for value in losses.values()) / data.valid_tokens if losses else None
        gradients = {name: (p.grad.clone().numpy(), dims[name]) for name, p in parameters.items()}
        first = first or (mesh.coordinates, loss, gradients)
        clip_by_global_norm(
            parameters,
            counted=counted_once(pipeline.stages.values(), tp),
            groups=[mesh.model.group] if mesh.model.group else [],
            max_norm=ADAMW.clip_norm,
        )
        optimizer.step(ADAMW.learning_rate)
    return (*first, {name: (p.detach().numpy(), dims[name]) for name, p in parameters.items()})


def worst_difference(results, layout, column, expected):
    """Compare column `column` of every rank's result with whole tensors by name."""
    worst, seen = 0.0, set()
    for result in results:
        for name, (local, dim) in result[column].items():
            full = expected[name]
            if dim is not None:
                part = TensorParallel(rank=result[0].tp, size=layout.tp).slice(full.shape[dim])
                full = full.narrow(dim, part.start, len(part))
            assert full.shape == local.shape
            if full.numel():
                worst = max(worst, float((full - torch.from_numpy(local)).abs().max()))
            seen.add(name)
    assert seen == set(expected)
    return worst


def compare(results, spec, layout, steps=1):
    """Return the worst difference of losses, gradients and parameters from one process."""
    loss, gradients, parameters = reference(spec, layout.global_batch, steps)
    found = sum(loss for place, loss, *_ in results if loss is not None and place.tp == 0)
    worst = max(abs(found - loss), worst_difference(results, layout, 2, gradients))
    return max(worst, worst_difference(results, layout, 3, parameters)) if steps > 1 else worst


def factorisations(ranks):
    degrees = [n for n in (1, 2, 4, 8) if n <= ranks]
    return [t for t in itertools.product(degrees, repeat=3) if t[0] * t[1] * t[2] == ranks]


def sampled(cases, count):
    """Return all cases in CI, elsewhere `count` of them, chosen by the seed in CUBOID_SEED."""
    if os.environ.get("CI") or len(cases) <= count:
        return cases
    return random.Random(int(os.environ.get("CUBOID_SEED", "0"))).sample(cases, count)


def run_layouts(run_ranks, cases, steps):
    """Run (model, layout) of as many ranks in one start of them; return each one's worst difference."""
    ranks = cases[0][1].world_size
    results = run_ranks(ranks, lambda: [run_steps(*case, steps) for case in cases])
    return {
        (layout.tp, layout.pp, layout.dp): compare([rank[i] for rank in results], spec, layout, steps)
        for i, (spec, layout) in enumerate(cases)
    }


@pytest.mark.parametrize("tied", [True, False], ids=["tied", "untied"])
@pytest.mark.parametrize("schedule", ["gpipe", "1f1b"])
@pytest.mark.parametrize("ranks", [1, 2, 4, 8])
def test_three_steps_equal_those_of_one_process(run_ranks, ranks, schedule, tied):
    cases = []
    for tp, pp, dp in sampled(factorisations(ranks), 5):
        layout = Layout(tp=tp, pp=pp, dp=dp, global_batch=3 * dp, schedule=schedule, precision="fp64")
        # Few layers: what takes the time is what the ranks of one layer say to each other.
        cases.append((model(layers=max(pp, 4), hidden=16, heads=8, tied_embeddings=tied), layout))
    worst = run_layouts(run_ranks, cases, steps=3)
    assert max(worst.values()) <= 1e-12, worst


def test_llama_shape_with_several_sequences_a_microbatch(run_ranks):
    spec = model(position="rope", norm="rmsnorm", gated_mlp=True, heads=4, kv_heads=2, tied_embeddings=False)
    layouts = [
        Layout(tp=tp, pp=pp, dp=dp, microbatch=2, global_batch=6 * dp, precision="fp64")
        for tp, pp, dp in [(2, 2, 1), (1, 2, 2), (2, 1, 2), (1, 4, 1)]
    ]
    worst = run_layouts(run_ranks, [(spec, layout) for layout in layouts], steps=2)
    assert max(worst.values()) <= 1e-12, worst


def _no_reduce(self, stage):
    """A gradient reduction that does nothing."""


@pytest.mark.parametrize(
    ("owner", "method", "broken"),
    [
        (GradientReducer, "start", _no_reduce),
        (Tie, "reduce", lambda self: None),
    ],
    ids=["no reduction over dp", "no sum over the tie"],
)
def test_a_missing_reduction_is_noticed(run_ranks, monkeypatch, owner, method, broken):
    spec, layout = model(), Layout(pp=2, dp=2, global_batch=8, precision="fp64")
    monkeypatch.setattr(owner, method, broken)
    results = run_ranks(4, run_steps, spec, layout)
    assert compare(results, spec, layout) > 1e-4


@pytest.mark.parametrize(
    ("schedule", "pp", "chunks"), [("1f1b", 4, 1), ("interleaved-1f1b", 2, 2), ("zb-v", 4, 2)]
)
def test_messages_need_no_tags(run_ranks, monkeypatch, schedule, pp, chunks):
    """As on NCCL: one communicator for each direction, messages matched by nothing but their order."""
    monkeypatch.setattr("runtime.mesh.backend_of", lambda device: "nccl")
    spec = model(layers=8)
    layout = Layout(pp=pp, chunks=chunks, global_batch=8, schedule=schedule, precision="fp64")
    results = run_ranks(pp, run_steps, spec, layout)
    assert compare(results, spec, layout) <= 1e-12


@pytest.mark.parametrize("microbatch", [1, 2, 5])
@pytest.mark.parametrize("count", [1, 3])
def test_one_step_of_sgd_in_closed_form(run_ranks, count, microbatch):
    """With the last norm's output fixed to b and an output matrix of zeros, every token's logits are equal:

    loss = log V,   dL/dW[v] = (1/V − share of v among the valid targets) · b,   W ← −η dL/dW
    """
    spec = model(tied_embeddings=False)
    vector = torch.linspace(-1, 2, spec.hidden, dtype=torch.float64)

    def run(layout):
        pipeline = start(spec, layout)
        parameters = {name: p for name, p, _ in pipeline.parameters()}
        with torch.no_grad():
            for name, value in (
                ("head.norm.weight", 0.0),
                ("head.norm.bias", vector),
                ("head.output.weight", 0.0),
            ):
                if name in parameters:
                    parameters[name].copy_(torch.as_tensor(value))
        data = step_data(spec, layout, pipeline.mesh)
        losses = pipeline.gradients(data)
        Optimizer(SGD, parameters).step(SGD.learning_rate)
        output = parameters.get("head.output.weight")
        loss = sum(value.item() for value in losses.values()) / data.valid_tokens
        return loss, None if output is None else output.detach().numpy()

    layouts = [
        Layout(
            tp=tp, pp=pp, dp=dp, microbatch=microbatch, global_batch=count * microbatch * dp, precision="fp64"
        )
        for tp, pp, dp in [(1, 2, 2), (2, 2, 1), (1, 1, 4)]
    ]
    of_ranks = run_ranks(4, lambda: [run(layout) for layout in layouts])
    for layout, results in zip(layouts, zip(*of_ranks, strict=True), strict=True):
        _, targets = global_batch(spec, layout.global_batch)
        valid = targets[targets != -100]
        shares = torch.bincount(valid, minlength=spec.vocab).double() / len(valid)
        expected = -SGD.learning_rate * torch.outer(1 / spec.vocab - shares, vector)
        assert sum(loss for loss, _ in results) == pytest.approx(
            layout.tp * torch.tensor(spec.vocab).log().item()
        )
        for rank, (_, output) in enumerate(results):
            if output is not None:
                place = TensorParallel(rank=layout.coordinates(rank).tp, size=layout.tp)
                rows = place.slice(spec.vocab)
                torch.testing.assert_close(
                    torch.from_numpy(output), expected[rows.start : rows.stop], rtol=1e-12, atol=1e-14
                )


def family_cases():
    """Layouts for every flushing family: chunks, uneven stages, fewer microbatches than ranks, tp and dp."""
    cases = []
    for family, pp, chunks, microbatches in itertools.product(
        FAMILIES, (1, 2, 3, 4, 8), (1, 2, 3), (1, 2, 4, 6)
    ):
        if not family.flush:
            continue
        try:
            build(family.name, ranks=pp, microbatches=microbatches, chunks=chunks)
        except ScheduleError:
            continue
        for tp, dp in [(1, 1), (2, 1), (1, 2), (2, 2)]:
            # Many ranks are slow: there fewer counts of microbatches, and one chunk only of who has no other.
            many, usual = tp * pp * dp > 4, microbatches in {2, 6} and (chunks > 1 or not family.chunked)
            if tp * pp * dp <= 8 and (usual or not many):
                cases.append((family.name, tp, pp, dp, chunks, microbatches))
    return cases


def family_groups():
    """Cases by family and number of ranks; a seeded sample of them outside CI."""
    groups = {}
    for case in family_cases():
        name, tp, pp, dp, *_ = case
        groups.setdefault((name, tp * pp * dp), []).append(case)
    if not os.environ.get("CI"):
        groups = {key: sampled(cases, 3) for key, cases in groups.items() if key[1] > 1}
    return groups


GROUPS = family_groups()


@pytest.mark.slow
@pytest.mark.parametrize(("family", "ranks"), list(GROUPS), ids=str)
def test_every_family_gives_the_gradients_of_one_process(run_ranks, family, ranks):
    layouts, specs = [], []
    for name, tp, pp, dp, chunks, microbatches in GROUPS[family, ranks]:
        stages = pp * chunks
        layers = [1 + (5 * stage + pp) % 3 // 2 for stage in range(stages)]  # uneven
        specs.append(model(layers=sum(layers), tied_embeddings=(pp + chunks + microbatches) % 2 == 0))
        layouts.append(
            Layout(
                tp=tp,
                pp=pp,
                dp=dp,
                chunks=chunks,
                schedule=name,
                global_batch=microbatches * dp,
                layers_per_stage=tuple(layers),
                precision="fp64",
            )
        )
    cases = list(zip(specs, layouts, strict=True))
    results = run_ranks(ranks, lambda: [run_steps(*case) for case in cases])
    for i, (spec, layout) in enumerate(cases):
        worst = compare([rank[i] for rank in results], spec, layout)
        assert worst <= 1e-12, (GROUPS[family, ranks][i], worst)


# Stages 0 and 2 on the second rank, 1 and 3 on the first, whole and split backwards, weight gradients late.
BY_HAND = (
    "1F0,1F1,3F0,3I0,3F1,3B1,1I0,3W0,1B1,1W0",
    "0F0,0F1,2F0,2F1,2I0,2B1,0I0,2W0,0B1,0W0",
)


@pytest.mark.parametrize(("tp", "dp", "tied"), [(1, 2, True), (2, 1, False)])
def test_a_schedule_by_hand_gives_the_steps_of_one_process(run_ranks, tp, dp, tied):
    spec = model(layers=5, tied_embeddings=tied)
    layout = Layout(
        tp=tp,
        pp=2,
        dp=dp,
        chunks=2,
        schedule="custom",
        actions=BY_HAND,
        global_batch=2 * dp,
        layers_per_stage=(1, 2, 0, 2),
        precision="fp64",
    )
    worst = run_layouts(run_ranks, [(spec, layout)], steps=3)
    assert max(worst.values()) <= 1e-12, worst


@pytest.mark.parametrize("recompute", ["none", "selective", "full"])
@pytest.mark.parametrize(("tp", "pp", "dp", "tied"), [(2, 1, 2, False), (2, 2, 1, True)])
def test_sequence_parallel_and_recompute_change_nothing(run_ranks, recompute, tp, pp, dp, tied):
    spec = model(tied_embeddings=tied)
    layout = Layout(
        tp=tp,
        pp=pp,
        dp=dp,
        global_batch=4 * dp,
        precision="fp64",
        sequence_parallel=True,
        recompute=recompute,
    )
    results = run_ranks(layout.world_size, run_steps, spec, layout)
    assert compare(results, spec, layout) <= 1e-12


@pytest.mark.parametrize(("tp", "pp", "dp"), [(1, 1, 1), (2, 2, 1), (1, 2, 2)])
def test_bf16_gradients_are_near_and_in_fp32(run_ranks, tp, pp, dp):
    spec = model()
    layout = Layout(
        tp=tp, pp=pp, dp=dp, global_batch=4 * dp, precision="bf16", sequence_parallel=tp > 1, recompute="full"
    )

    def run():
        pipeline = start(spec, layout)
        data = step_data(spec, layout, pipeline.mesh)
        losses = pipeline.gradients(data)
        loss = sum(value.item() for value in losses.values()) / data.valid_tokens
        gradients = {name: (p.grad.numpy(), shard) for name, p, shard in pipeline.parameters()}
        return TensorParallel(rank=pipeline.mesh.tp.rank, size=tp), loss, gradients

    loss, expected, _ = reference(spec, layout.global_batch)
    results = run_ranks(layout.world_size, run)
    assert sum(found for place, found, _ in results if place.rank == 0) == pytest.approx(loss, rel=1e-3)
    for place, _, gradients in results:
        for name, (local, shard) in gradients.items():
            part = shard.local(expected[name], place)
            assert local.dtype == "float32"
            assert (torch.from_numpy(local) - part).norm() < 0.05 * max(part.norm(), 1e-3), name
