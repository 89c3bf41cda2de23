"""Weight stashing: against three backwards written out, and delayed SGD in one process."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from planner.job import OptimizerSpec
from planner.layout import Layout
from planner.schedules import find_family, weight_versions
from profiles.model import ModelSpec
from runtime.executor import Executor, StepData
from runtime.linear import Linear
from runtime.mesh import build_mesh, local_device
from runtime.models import build_stage
from runtime.pipeline import build_pipeline, message_edges, proved
from runtime.recorder import Recorder
from runtime.tensor_parallel import TensorParallel
from runtime.transport import Transport
from runtime.weight_versions import AsynchronousUpdates, StageVersions

SGD = OptimizerSpec(name="sgd", learning_rate=0.1, weight_decay=0.0, clip_norm=None)
MODEL = ModelSpec(layers=4, hidden=8, heads=2, vocab=13, seq_len=6, tied_embeddings=False)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize(
    ("versions", "equal"), [((0, 0, 0), "aaa"), ((0, 1, 1), "abb"), ((0, 0, 1), "aab"), ((0, 1, 2), "abc")]
)
def test_three_backwards_see_the_weights_of_their_forward(versions, equal, dtype):
    """The input gradient of a linear is dY · W, so it tells which version of W a backward used."""
    torch.manual_seed(0)
    layer = Linear(3, 2, bias=False).to(dtype)
    layer.weight.grad_dtype = torch.float32
    nn.init.normal_(layer.weight)
    stage = StageVersions({"weight": layer.weight}, SGD)
    stage.begin(versions)
    weights, graphs = [layer.weight.detach().clone()], []
    for microbatch, version in enumerate(versions):
        while stage.newest < version:
            layer.weight.grad = torch.ones_like(layer.weight, dtype=torch.float32)
            stage.update(0.1)
            weights.append(weights[-1] - 0.1)
        stage.use(microbatch)
        inputs = torch.ones(1, 3, dtype=dtype, requires_grad=True)
        graphs.append((inputs, layer(inputs)))
    assert stage.alive == len(set(versions))
    for microbatch, (inputs, output) in enumerate(graphs):
        stage.use(microbatch)
        output.sum().backward()
        stage.done(microbatch)
        torch.testing.assert_close(inputs.grad[0], weights[versions[microbatch]].sum(0))
    assert stage.alive == 1
    pattern = [next(k for k, (x, _) in enumerate(graphs) if torch.equal(x.grad, y.grad)) for y, _ in graphs]
    assert pattern == [equal.index(letter) for letter in equal]


def batches(microbatches, dp):
    """Tokens and targets [dp, microbatches, 1, seq], with different numbers of valid targets."""
    generator = torch.Generator().manual_seed(3)
    shape = (dp, microbatches, 1, MODEL.seq_len)
    tokens = torch.randint(MODEL.vocab, shape, generator=generator)
    targets = torch.randint(MODEL.vocab, shape, generator=generator)
    for i in range(microbatches):
        targets[:, i, :, : i % 4] = -100
    return tokens, targets


def valid_tokens(targets, every):
    """Valid targets of each microbatch's global batch: `every` microbatches of all pipelines."""
    counts = (targets != -100).sum((0, 2, 3)).view(-1, every).sum(1)
    return counts.repeat_interleave(every).tolist()


def run(name, ranks, dp, microbatches, steps):
    """Run the asynchronous schedule on this rank; return the parameters of its stage and versions kept."""
    every = 1 if name == "pipedream" else microbatches
    schedule = find_family(name).build_steps(ranks, microbatches, 1, steps)
    lowered = proved(schedule)
    layout = Layout(pp=ranks, dp=dp, global_batch=dp * schedule.microbatches, precision="fp64")
    mesh = build_mesh(
        layout, placement=schedule.placement, device=local_device(0), edges=message_edges(lowered)
    )
    pipeline = build_pipeline(MODEL, layout, mesh=mesh, lowered=lowered, seed=1, recorder=Recorder())
    updates = AsynchronousUpdates(pipeline.stages, reducer=pipeline.reducer, spec=SGD)
    updates.begin(schedule, lambda n: 0.1)
    executor = Executor(
        stages=pipeline.stages,
        lowered=lowered,
        rank=mesh.coordinates.pp,
        transport=Transport(mesh, shape=(1, MODEL.seq_len, MODEL.hidden), dtype=torch.float64, unclaimed=16),
        reducer=pipeline.reducer,
        recorder=Recorder(),
        updates=updates,
    )
    tokens, targets = batches(schedule.microbatches, dp)
    pipeline.reducer.begin_step()
    executor.step(
        StepData(
            tokens=tokens[mesh.dp.rank],
            targets=targets[mesh.dp.rank],
            valid_tokens=valid_tokens(targets, every),
        )
    )
    named = {name: p.detach().numpy() for name, p, _ in pipeline.parameters()}
    return named, updates.alive, weight_versions(schedule)[mesh.coordinates.pp]


def recurrence(name, ranks, dp, microbatches, steps):
    """The same updates in one process: W(n + 1) = W(n) − ν ∇f(W(v)), every stage with its own delay v."""
    every = 1 if name == "pipedream" else microbatches
    total = microbatches * steps
    tokens, targets = batches(total, dp)
    counts = valid_tokens(targets, every)
    layers = MODEL.layers // ranks
    stages = [
        build_stage(
            MODEL,
            layers=range(s * layers, (s + 1) * layers),
            first=s == 0,
            last=s == ranks - 1,
            tp=TensorParallel(),
            seed=1,
            dtype=torch.float64,
            device=torch.device("cpu"),
        )
        for s in range(ranks)
    ]
    history = [[{n: p.detach().clone() for n, p in stage.named_parameters()}] for stage in stages]
    for i in range(total):
        if name == "pipedream":  # stage s has p − 1 − s microbatches in flight before its first update
            delays = [max(0, i - (ranks - 1 - s)) for s in range(ranks)]
        else:
            delays = [max(0, i // every - 1)] * ranks
        for s, stage in enumerate(stages):
            stage.load_state_dict(history[s][delays[s]])
        for replica in range(dp):
            hidden = tokens[replica, i]
            for stage in stages[:-1]:
                hidden = stage(hidden)
            (stages[-1](hidden, targets[replica, i]) / counts[i]).backward()
        if (i + 1) % every == 0:
            for s, stage in enumerate(stages):
                step = {n: history[s][-1][n] - 0.1 * p.grad for n, p in stage.named_parameters()}
                history[s].append(step)
                stage.zero_grad()
    return [versions[-1] for versions in history]


@pytest.mark.parametrize(
    ("name", "ranks", "dp", "microbatches", "steps"),
    [
        ("pipedream", 2, 1, 6, 1),
        ("pipedream", 4, 2, 7, 1),
        ("pipedream", 4, 1, 2, 1),
        ("pipedream-2bw", 2, 2, 2, 4),
        ("pipedream-2bw", 4, 1, 4, 3),
        ("pipedream-2bw", 4, 2, 3, 3),
    ],
)
def test_asynchronous_training_is_delayed_sgd(run_ranks, name, ranks, dp, microbatches, steps):
    expected = recurrence(name, ranks, dp, microbatches, steps)
    results = run_ranks(ranks * dp, run, name, ranks, dp, microbatches, steps)
    layout = Layout(pp=ranks, dp=dp, global_batch=dp)
    for rank, (named, alive, versions) in enumerate(results):
        stage = layout.coordinates(rank).pp
        assert named.keys() == expected[stage].keys()
        for parameter, value in named.items():
            torch.testing.assert_close(
                torch.from_numpy(value), expected[stage][parameter], rtol=0, atol=1e-12
            )
        assert alive == versions <= (2 if name == "pipedream-2bw" else ranks - stage)
