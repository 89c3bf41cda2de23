"""Gradients summed over dp while the last backward goes on: complete, in one order, and never too early."""

from __future__ import annotations

import pytest
import torch
import torch.distributed as dist
from torch import nn

from profiles.gradient_buckets import bucket_bytes
from runtime.data_parallel import GradientReducer, make_buckets
from runtime.mesh import Axis


class Sent:
    """Stands for the all-reduce of a group of two equal ranks: doubles, and notes when it was asked to."""

    def __init__(self, monkeypatch):
        self.order = []
        monkeypatch.setattr(dist, "all_reduce", self.all_reduce)

    def all_reduce(self, tensor, group=None, async_op=False):
        assert async_op
        self.order.append(tensor.data_ptr())
        tensor.mul_(2)
        return self

    def wait(self):
        return True


@pytest.fixture
def sent(monkeypatch):
    return Sent(monkeypatch)


def make_reducer(count=4, size=8):
    parameters = [nn.Parameter(torch.ones(size)) for _ in range(count)]
    reducer = GradientReducer({0: parameters}, axis=Axis(ranks=(0, 1), rank=0), limit_bytes=size * 4)
    return parameters, reducer


def backward(parameters, told, value=1.0):
    """Add to the gradients, the last parameter first, as a backward does."""
    for parameter in reversed(parameters):
        parameter.grad.add_(value)
        if told is not None:
            told(parameter)


def test_buckets_are_sent_while_the_last_backward_goes_on(sent):
    parameters, reducer = make_reducer()
    for step in range(3):
        sent.order.clear()
        reducer.begin_step()
        backward(parameters, None)
        told, before = reducer.last(0), []

        def note(parameter, told=told, before=before):
            before.append(len(sent.order))
            told(parameter)

        backward(parameters, note)
        assert before == ([0] * 4 if step == 0 else [0, 1, 2, 3])
        reducer.start(0)
        reducer.finish()
        assert len(sent.order) == 4
        assert sent.order == [parameter.grad.data_ptr() for parameter in reversed(parameters)]
        for parameter in parameters:  # two backwards of one, doubled by the sum
            assert torch.equal(parameter.grad, torch.full((8,), 4.0))


def test_buckets_keep_their_order_where_gradients_come_in_another(sent):
    parameters, reducer = make_reducer()
    for _ in range(2):
        sent.order.clear()
        reducer.begin_step()
        told = reducer.last(0)
        backward(parameters[::-1], told)  # the first parameter first
        reducer.start(0)
        reducer.finish()
    assert sent.order == [parameter.grad.data_ptr() for parameter in reversed(parameters)]


def test_a_gradient_after_its_bucket_was_sent_is_refused(sent):
    parameters, reducer = make_reducer()
    reducer.begin_step()
    backward(parameters, reducer.last(0))
    reducer.start(0)
    reducer.finish()
    reducer.begin_step()
    told = reducer.last(0)
    backward(parameters, told)
    with pytest.raises(RuntimeError, match="after its bucket had been sent"):
        told(parameters[-1])


def test_what_comes_through_autograd_counts_too(sent):
    parameters, reducer = make_reducer(count=2)
    for step in range(2):
        sent.order.clear()
        reducer.begin_step()
        reducer.last(0)
        (parameters[0] * parameters[1]).sum().backward()
        assert len(sent.order) == (0 if step == 0 else 2)
        reducer.start(0)
        reducer.finish()
    assert all(torch.equal(parameter.grad, torch.full((8,), 2.0)) for parameter in parameters)


def test_an_unused_parameter_waits_for_nothing_and_ends_at_zero(sent):
    parameters, reducer = make_reducer()
    for _ in range(2):
        reducer.begin_step()
        backward(parameters[1:], reducer.last(0))
        reducer.start(0)
        reducer.finish()
    assert torch.equal(parameters[0].grad, torch.zeros(8))
    assert torch.equal(parameters[1].grad, torch.full((8,), 2.0))


def test_without_a_last_backward_everything_is_sent_at_the_end(sent):
    parameters, reducer = make_reducer()
    reducer.begin_step()
    backward(parameters, None)
    assert not sent.order
    reducer.start(0)
    reducer.finish()
    assert len(sent.order) == 4


def test_a_stage_leaves_something_to_send_early():
    held = [nn.Parameter(torch.ones(1 << 16)) for _ in range(40)]
    assert len(make_buckets(held, limit_bytes=bucket_bytes(40 << 18))) >= 8
