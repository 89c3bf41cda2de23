"""Asynchronous training: delayed SGD from flush to flush, 1F1B where nothing overlaps, exact resumes."""

from __future__ import annotations

import json
import warnings
from itertools import pairwise

import pytest
import torch

from planner.job import Job, OptimizerSpec
from planner.layout import Layout
from planner.layout_schedule import with_schedule
from planner.plan import Plan
from planner.schedules import build, parse_schedule, to_csv
from profiles.cluster import ClusterSpec, DeviceSpec, LinkSpec
from profiles.model import ModelSpec
from runtime.asynchronous import AsynchronousTrainer
from runtime.data import Samples
from runtime.mesh import build_mesh, local_device
from runtime.models import build_stage
from runtime.pipeline import build_pipeline, lowered_schedule, message_edges
from runtime.recorder import Recorder
from runtime.tensor_parallel import TensorParallel
from runtime.trainer import Trainer

MODEL = ModelSpec(layers=4, hidden=8, heads=2, vocab=256, seq_len=6, tied_embeddings=False)
DEVICE = DeviceSpec(
    name="cpu",
    vendor="cpu",
    memory_bytes=2**30,
    memory_bytes_per_second=1e10,
    flops_per_second={"fp64": 1e10},
)
LINK = LinkSpec(name="loopback", kind="shared_memory", bytes_per_second=1e9, latency_seconds=1e-4)
SEED = 1234
CORPUS = [(7 * i * i + 3 * i) % 251 for i in range(4000)]
SGD = OptimizerSpec(name="sgd", learning_rate=0.2, warmup_steps=3, weight_decay=0.0, clip_norm=None)


def job_of(layout, *, steps, optimizer):
    plan = Plan(
        model=MODEL, cluster=ClusterSpec(device=DEVICE, devices_per_node=8, links=(LINK,)), layout=layout
    )
    return Job(plan=plan, seed=SEED, steps=steps, optimizer=optimizer)


def trained(layout, steps, optimizer):
    """Train on this rank; return (step, loss, norm, rate) of every step and our final weights."""
    job, lowered = job_of(layout, steps=steps, optimizer=optimizer), lowered_schedule(layout)
    mesh = build_mesh(
        layout,
        placement=lowered.schedule.placement,
        device=local_device(0),
        edges=message_edges(lowered),
    )
    pipeline = build_pipeline(MODEL, layout, mesh=mesh, lowered=lowered, seed=job.seed, recorder=Recorder())
    kind = Trainer if lowered.schedule.flush else AsynchronousTrainer
    trainer = kind(job, mesh=mesh, pipeline=pipeline, corpus=CORPUS)
    results, flushes = [], [0]
    while flushes[-1] < steps:
        results += trainer.advance(flushes[-1])
        flushes.append(results[-1].step)
    numbers = [(r.step, r.loss, r.gradient_norm, r.learning_rate) for r in results]
    return (
        numbers,
        flushes,
        {name: p.detach().to(torch.float64).numpy() for name, p, _ in pipeline.parameters()},
    )


def delays(name, ranks, stage, microbatch, every):
    """How many updates the weights have seen since the flush that `microbatch` goes through `stage` with."""
    if name == "pipedream":
        return max(0, microbatch - (ranks - 1 - stage))
    return max(0, microbatch // every - 1)


def recurrence(layout, flushes, rates):
    """The same in one process: W(n + 1) = W(n) − ν ∇f(W(v)), every stage with its own v."""
    m, ranks = layout.microbatches, layout.pp
    every = 1 if layout.schedule == "pipedream" else m
    samples = Samples(CORPUS, seq_len=MODEL.seq_len, global_batch=layout.global_batch, seed=SEED)
    size = MODEL.layers // ranks
    stages = [
        build_stage(
            MODEL,
            layers=range(s * size, (s + 1) * size),
            first=s == 0,
            last=s == ranks - 1,
            tp=TensorParallel(),
            seed=SEED,
            dtype=torch.float64,
            device=torch.device("cpu"),
        )
        for s in range(ranks)
    ]
    history = [[{n: p.detach().clone() for n, p in stage.named_parameters()}] for stage in stages]
    losses = {}
    for begin, end in pairwise(flushes):
        for versions in history:
            del versions[:-1]
        for i in range((end - begin) * m):
            step, place = begin + i // m, i % m
            for s, stage in enumerate(stages):
                stage.load_state_dict(history[s][delays(layout.schedule, ranks, s, i, every)])
            for replica in range(layout.dp):
                first = replica * m * layout.microbatch + place * layout.microbatch
                tokens, targets = samples.batch(step, range(first, first + layout.microbatch))
                hidden = tokens
                for stage in stages[:-1]:
                    hidden = stage(hidden)
                loss = stages[-1](hidden, targets)
                (loss / (every * layout.dp * layout.microbatch * MODEL.seq_len)).backward()
                losses[step] = losses.get(step, 0.0) + float(loss.detach()) / (
                    layout.global_batch * MODEL.seq_len
                )
            if (i + 1) % every == 0:
                for s, stage in enumerate(stages):
                    newest = history[s][-1]
                    history[s].append(
                        {n: newest[n] - rates[step] * p.grad for n, p in stage.named_parameters()}
                    )
                    stage.zero_grad()
    return [losses[step] for step in sorted(losses)], [versions[-1] for versions in history]


@pytest.mark.parametrize(
    ("name", "pp", "dp", "microbatches", "flush_every"),
    [("pipedream", 2, 2, 3, 2), ("pipedream-2bw", 2, 1, 3, 3), ("pipedream-2bw", 4, 1, 3, 2)],
)
def test_training_is_delayed_sgd_from_flush_to_flush(run_ranks, name, pp, dp, microbatches, flush_every):
    layout = Layout(
        pp=pp,
        dp=dp,
        global_batch=2 * dp * microbatches,
        microbatch=2,
        schedule=name,
        precision="fp64",
        flush_every=flush_every,
    )
    results = run_ranks(pp * dp, trained, layout, 5, SGD)
    numbers, flushes, _ = results[0]
    assert flushes == {2: [0, 2, 4, 5], 3: [0, 3, 5]}[flush_every]
    losses, weights = recurrence(layout, flushes, [rate for *_, rate in numbers])
    assert [step for step, *_ in numbers] == [1, 2, 3, 4, 5]
    assert [loss for _, loss, *_ in numbers] == pytest.approx(losses, rel=1e-12)
    for rank, (_, _, own) in enumerate(results):
        for parameter, value in own.items():
            expected = weights[layout.coordinates(rank).pp][parameter]
            torch.testing.assert_close(torch.from_numpy(value), expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize("name", ["pipedream", "pipedream-2bw"])
def test_a_written_schedule_trains_as_the_family_it_spells_out(run_ranks, name):
    """Read back from its text, weight versions included: the same losses and weights, bit for bit."""
    layout = Layout(pp=2, global_batch=3, schedule=name, precision="fp64", flush_every=2)
    read = parse_schedule(to_csv(build(name, ranks=2, microbatches=3, steps=2))).schedule
    written = with_schedule(layout, read, name="mine.csv")
    assert written.schedule == "custom"

    def both():
        return trained(layout, 4, SGD), trained(written, 4, SGD)

    for (numbers, flushes, weights), (same_numbers, same_flushes, same_weights) in run_ranks(2, both):
        assert (numbers, flushes) == (same_numbers, same_flushes)
        assert all((value == same_weights[parameter]).all() for parameter, value in weights.items())


@pytest.mark.parametrize(
    ("fields", "clip"), [({"tp": 2}, 0.05), ({"pp": 2}, None), ({"dp": 2, "precision": "bf16"}, 1.0)]
)
def test_without_overlap_it_is_synchronous_training(run_ranks, fields, clip):
    """2BW that flushes after every step makes 1F1B's updates: AdamW, norms and, on one stage, clipping."""
    optimizer = OptimizerSpec(clip_norm=clip, warmup_steps=2)
    shared = {"global_batch": 6, "precision": "fp64"} | fields
    ours = Layout(schedule="pipedream-2bw", flush_every=1, **shared)
    theirs = Layout(schedule="1f1b", **shared)

    def both():
        return trained(ours, 4, optimizer), trained(theirs, 4, optimizer)

    for (numbers, _, weights), (expected, _, reference) in run_ranks(2, both):
        for found, wanted in zip(numbers, expected, strict=True):
            assert found == pytest.approx(wanted, rel=1e-9)
        for name, value in weights.items():
            assert value == pytest.approx(reference[name], rel=1e-9, abs=1e-12)


def test_the_whole_gradient_stays_within_the_clip_norm(run_ranks):
    """Plain SGD at rate 1 moves the weights by the clipped gradient: at most clip_norm over all stages."""
    layout = Layout(pp=2, global_batch=3, schedule="pipedream-2bw", precision="fp64", flush_every=1)
    spec = {"name": "sgd", "learning_rate": 1.0, "warmup_steps": 0, "weight_decay": 0.0}

    def moved():
        free = trained(layout, 1, OptimizerSpec(clip_norm=1e9, final_learning_rate=1.0, **spec))
        tight = trained(layout, 1, OptimizerSpec(clip_norm=0.01, final_learning_rate=1.0, **spec))
        start = trained(layout, 1, OptimizerSpec(clip_norm=1e-30, final_learning_rate=1.0, **spec))
        squares = [
            sum(((run[2][name] - value) ** 2).sum() for name, value in start[2].items())
            for run in (free, tight)
        ]
        return squares, free[0][0][2], tight[0][0][2]

    ranks = run_ranks(2, moved)
    unclipped, clipped = (sum(squares[i] for squares, *_ in ranks) ** 0.5 for i in (0, 1))
    assert unclipped == pytest.approx(ranks[0][1], rel=1e-9)  # the norm that is reported
    assert ranks[0][2] == pytest.approx(ranks[0][1], rel=1e-12)  # reported before clipping
    assert unclipped > 0.1
    assert clipped == pytest.approx(0.01, rel=1e-6)


def saved(folder):
    """All tensors of a checkpoint, by name."""
    from torch.distributed.checkpoint import FileSystemReader, load

    reader = FileSystemReader(folder)
    entries = reader.read_metadata().state_dict_metadata
    state = {name: torch.empty(entry.size, dtype=entry.properties.dtype) for name, entry in entries.items()}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # it notices that it loads in one process
        load(state, storage_reader=reader, no_dist=True)
    return state


def test_a_stopped_run_resumes_bit_for_bit_at_a_flush(make_run, train_ranks):
    layout = Layout(pp=2, global_batch=4, schedule="pipedream", precision="fp32", flush_every=2)
    fields = {"steps": 5, "model": MODEL.model_copy(update={"seq_len": 16, "hidden": 16})}
    whole, parts = make_run(layout, name="whole", **fields), make_run(layout, name="parts", **fields)
    assert train_ranks(whole, 2).wait() == [0, 0]
    (parts / "STOP").touch()
    assert train_ranks(parts, 2).wait() == [0, 0]
    assert train_ranks(parts, 2, resume=True).wait() == [0, 0]

    def lines(run, name):
        return [json.loads(line) for line in (run / f"{name}.jsonl").read_text().splitlines()]

    events = [(line["event"], line["step"]) for line in lines(parts, "events")]
    assert events == [
        ("started", 0),
        ("checkpoint", 2),
        ("stopped", 2),
        ("resumed", 2),
        ("checkpoint", 5),
        ("finished", 5),
    ]
    assert [line["loss"] for line in lines(parts, "metrics")] == [
        line["loss"] for line in lines(whole, "metrics")
    ]
    expected, found = (saved(run / "checkpoints" / "step-00000005") for run in (whole, parts))
    assert expected.keys() == found.keys()
    assert all(torch.equal(tensor, found[name]) for name, tensor in expected.items())
    record = json.loads((whole / "record.json").read_text())
    assert record["steps"] == 5
    for rank in record["ranks"]:
        assert rank["busy"] + rank["wait"] + rank["idle"] == pytest.approx(rank["step"])
