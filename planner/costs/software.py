"""Software: what the training code does with a layer, apart from the layout.

Published runs differ in the year of their code: whether attention scores are materialised, how many kernels
one layer is made of, what is kept from forward to backward. These are the only properties in which a
prediction may differ between two runs of the same layout on the same devices.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Software:
    """Properties of the training code that change time and memory.

    `gradient_bytes` is the size of one accumulated gradient element and of its reduction.
    `dropout` says whether masks are drawn and kept. `host_factor` scales the host time per kernel
    (`DeviceSpec.launch_seconds` is that of a lean eager loop). `tp_overlap` and `pp_overlap` are the
    fractions of that communication hidden behind independent compute where the layout asks for overlap.
    """

    name: str
    flash_attention: bool = True
    gradient_bytes: int = 4
    dropout: bool = False
    fused_elementwise: bool = True
    host_factor: float = 1.0
    tp_overlap: float = 0.7
    pp_overlap: float = 0.9
    source: str = "assumed"


MODERN = Software(
    name="modern", source="flash attention, fp32 gradient accumulation, fused element-wise kernels"
)

MEGATRON_2021 = Software(
    name="megatron-2021",
    flash_attention=False,
    gradient_bytes=2,
    dropout=True,
    source="Narayanan et al. 2021, arXiv 2104.04473: fused softmax, scores materialised, no gradient overlap",
)
MEGATRON_2022 = Software(
    name="megatron-2022",
    flash_attention=False,
    gradient_bytes=4,
    dropout=True,
    source="Korthikanti et al. 2022, arXiv 2205.05198: sequence parallel, selective recompute",
)
FSDP = Software(name="fsdp", gradient_bytes=4, source="PyTorch FSDP with flash attention, mixed precision")
