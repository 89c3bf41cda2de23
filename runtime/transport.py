"""Point to point between pipeline ranks: receives posted ahead, sends that never wait.

    receive   posted before it is needed, into a pooled buffer; `Arrival.take` waits for the data
    send      starts and returns; the tensor is kept until it has been taken

gloo matches messages by tag. NCCL ignores tags and matches by order, so there every direction between two
ranks has its own communicator, and the lowered schedule proves that both ends list that direction's messages
in one order. Posting ahead keeps that order.
"""

from __future__ import annotations

from collections import deque
from typing import NamedTuple

import torch
import torch.distributed as dist

from runtime.mesh import Mesh


class Arrival(NamedTuple):
    """A posted receive."""

    work: dist.Work
    buffer: torch.Tensor

    def take(self) -> torch.Tensor:
        """Wait for the data and return it (on an accelerator, the stream waits, not the host)."""
        self.work.wait()
        return self.buffer


class Transport:
    """Messages of one rank with the other ranks of its pipeline.

    All messages have one shape, [microbatch, sequence, hidden], and one dtype. `unclaimed` is how many sends
    may lie untaken before the oldest is waited for; gloo cannot tell that a send is done except by waiting
    for it. Waiting for an old send cannot deadlock: its receive stands earlier in the common order of the
    lowered schedule than anything the receiver could be waiting for.
    """

    def __init__(self, mesh: Mesh, *, shape: tuple[int, ...], dtype: torch.dtype, unclaimed: int) -> None:
        self._mesh = mesh
        self._shape = shape
        self._dtype = dtype
        self._unclaimed = unclaimed
        self._sends: deque[tuple[dist.Work, torch.Tensor]] = deque()
        self._pool: list[torch.Tensor] = []

    def send(self, tensor: torch.Tensor, *, peer: int, tag: int) -> None:
        """Start sending `tensor` to pipeline rank `peer`."""
        tensor = tensor.contiguous()
        group, place, tag = self._channel(self._mesh.pp.rank, peer, peer, tag)
        work = group.send([tensor], place, tag)
        self._sends.append((work, tensor))
        while self._sends and self._sends[0][0].is_completed():
            self._sends.popleft()
        while len(self._sends) > self._unclaimed:
            self._sends.popleft()[0].wait()

    def receive(self, *, peer: int, tag: int) -> Arrival:
        """Post the receive of one message from pipeline rank `peer`."""
        buffer = (
            self._pool.pop()
            if self._pool
            else torch.empty(self._shape, dtype=self._dtype, device=self._mesh.device)
        )
        group, place, tag = self._channel(peer, self._mesh.pp.rank, peer, tag)
        work = group.recv([buffer], place, tag)
        return Arrival(work, buffer)

    def release(self, buffer: torch.Tensor) -> None:
        """Give a received buffer back, once nothing reads it any more.

        A stage may pass a tensor through; what is still being sent from the buffer keeps it out of the pool.
        """
        address = buffer.data_ptr()
        if all(tensor.data_ptr() != address for _, tensor in self._sends):
            self._pool.append(buffer)

    def drain(self) -> None:
        """Wait until every send has been taken."""
        while self._sends:
            self._sends.popleft()[0].wait()

    def _channel(self, source: int, target: int, peer: int, tag: int) -> tuple[dist.ProcessGroup, int, int]:
        """Return the group, the peer's place in it and the tag for a message from `source` to `target`."""
        if self._mesh.edges:
            return self._mesh.edges[source, target], int(source < target) ^ int(peer == source), 0
        assert self._mesh.pp.group is not None, "a pipeline of one rank sends nothing"
        return self._mesh.pp.group, peer, tag
