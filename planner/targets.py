"""What a framework can run, as data: the search, the launcher and the runtime read the same object.

    planner.search   searches only what the target can run
    launcher         refuses a plan outside `CUBOID` before anything starts
    runtime.train    refuses it again on the ranks, from the same object

A layout option that no target lists is still priced by `cuboid estimate`.
"""

from __future__ import annotations

from dataclasses import dataclass

from planner.layout import Layout, RankOrder, Recompute
from planner.layout_schedule import schedule_of
from planner.schedules.families import find_family
from profiles.cluster import Precision
from profiles.errors import ConfigError, FieldError
from profiles.model import ModelSpec

ALL_ORDERS: tuple[RankOrder, ...] = (
    "tp-dp-pp",
    "tp-pp-dp",
    "dp-tp-pp",
    "dp-pp-tp",
    "pp-tp-dp",
    "pp-dp-tp",
)


@dataclass(frozen=True, kw_only=True)
class Target:
    """The layouts that one framework can execute.

    `schedules` is None where every family of `planner.schedules` runs. With `whole_rounds`, interleaved
    schedules need several ranks and as many microbatches as a multiple of pp; with `whole_stages`, every
    stage holds equally many layers. `asynchronous` says whether schedules without a flush run; `exact_models`
    whether only models whose shape says everything do (see `ModelSpec.approximations`).
    """

    name: str
    framework: str
    schedules: tuple[str, ...] | None
    precisions: tuple[Precision, ...]
    recomputes: tuple[Recompute, ...]
    recompute_per_stage: bool
    zeros: tuple[int, ...]
    sequence_parallel: bool
    whole_stages: bool
    whole_rounds: bool
    asynchronous: bool
    exact_models: bool
    rank_orders: tuple[RankOrder, ...]


CUBOID = Target(
    name="cuboid",
    framework="this project's runtime",
    schedules=None,
    precisions=("fp64", "fp32", "tf32", "bf16"),
    recomputes=("none", "selective", "full"),
    recompute_per_stage=True,
    zeros=(0,),
    sequence_parallel=True,
    whole_stages=False,
    whole_rounds=False,
    asynchronous=True,
    exact_models=True,
    rank_orders=ALL_ORDERS,
)

MEGATRON = Target(
    name="megatron",
    framework="Megatron-LM core 0.16",
    schedules=("1f1b", "interleaved-1f1b"),
    precisions=("fp32", "fp16", "bf16"),
    recomputes=("none", "selective", "full"),
    recompute_per_stage=False,
    zeros=(0, 1),
    sequence_parallel=True,
    whole_stages=False,  # --pipeline-model-parallel-layout takes any contiguous split
    whole_rounds=True,
    asynchronous=False,
    exact_models=False,
    rank_orders=("tp-dp-pp", "tp-pp-dp"),
)

ANY = Target(
    name="any",
    framework="no framework in particular",
    schedules=None,
    precisions=("fp64", "fp32", "tf32", "fp16", "bf16"),
    recomputes=("none", "selective", "full"),
    recompute_per_stage=True,
    zeros=(0, 1, 2, 3),
    sequence_parallel=True,
    whole_stages=False,
    whole_rounds=False,
    asynchronous=True,
    exact_models=False,
    rank_orders=ALL_ORDERS,
)

TARGETS = (CUBOID, MEGATRON, ANY)


def find_target(name: str) -> Target:
    """Return the target called `name`.

    Raises:
        ConfigError: when there is none; names those there are.
    """
    for target in TARGETS:
        if target.name == name:
            return target
    raise ConfigError(f"--target: '{name}' is not known; use {', '.join(t.name for t in TARGETS)}")


def check_target(layout: Layout, model: ModelSpec, target: Target) -> None:
    """Refuse a layout that `target` cannot run.

    Raises:
        FieldError: at the layout field to change, with what the target can run.
        ScheduleError: when there is no schedule of that name.
    """
    who = target.framework
    if target.schedules is not None and layout.schedule not in target.schedules:
        raise FieldError(("schedule",), f"{who} runs {_list(target.schedules)}, not '{layout.schedule}'")
    if not target.asynchronous and not flushes(layout):
        raise FieldError(
            ("schedule",),
            f"{layout.schedule} updates weights while microbatches are in flight, which {who} does not do;"
            " use a schedule with a flush, such as 1f1b or zb-v",
        )
    if layout.pp > 1 and not flushes(layout):
        check_tie(layout.schedule, model, target)
    if layout.precision not in target.precisions:
        raise FieldError(
            ("precision",), f"{who} trains in {_list(target.precisions)}, not {layout.precision}"
        )
    _check_memory_options(layout, target)
    if layout.rank_order not in target.rank_orders:
        raise FieldError(
            ("rank_order",), f"{who} places ranks as {_list(target.rank_orders)}, not {layout.rank_order}"
        )
    _check_stages(layout, model, target)
    if target.exact_models and model.approximations:
        raise FieldError(
            ("model",),
            f"{who} builds no model with {' or '.join(model.approximations)}; it can only be planned",
        )


def check_tie(schedule: str, model: ModelSpec, target: Target) -> None:
    """Refuse an asynchronous `schedule` of a model whose embedding is tied across stages, where it would run.

    Raises:
        FieldError: at the schedule, with what to change.
    """
    if target.exact_models and model.tied_embeddings:
        raise FieldError(
            ("schedule",),
            f"{schedule} updates every stage at another time, so a token embedding tied across stages"
            " would not stay one; set model.tied_embeddings to false, or use a schedule with a flush",
        )


def flushes(layout: Layout) -> bool:
    """Whether every step ends before the next begins.

    Raises:
        ScheduleError: when there is no schedule of that name.
    """
    if layout.actions is not None:
        return schedule_of(layout).flush
    return find_family(layout.schedule).flush


def _check_memory_options(layout: Layout, target: Target) -> None:
    who = target.framework
    if layout.zero not in target.zeros:
        raise FieldError(("zero",), f"{who} runs ZeRO {_list(target.zeros)}, not {layout.zero}")
    if layout.sequence_parallel and not target.sequence_parallel:
        raise FieldError(("sequence_parallel",), f"{who} has no sequence parallelism; set it to false")
    modes = {layout.recompute_of(stage) for stage in range(layout.stages)}
    for mode in sorted(modes):
        if mode not in target.recomputes:
            raise FieldError(("recompute",), f"{who} recomputes {_list(target.recomputes)}, not '{mode}'")
    if len(modes) > 1 and not target.recompute_per_stage:
        raise FieldError(("recompute",), f"{who} recomputes alike on every stage; give one value")


def _check_stages(layout: Layout, model: ModelSpec, target: Target) -> None:
    who = target.framework
    uneven = layout.layers_per_stage is not None and len(set(layout.layers_per_stage)) > 1
    if target.whole_stages and (uneven or model.layers % layout.stages):
        raise FieldError(
            ("layers_per_stage",),
            f"{who} needs equal stages: {layout.stages} stages for {model.layers} layers",
        )
    if target.whole_rounds and layout.chunks > 1 and layout.pp == 1:
        raise FieldError(("chunks",), f"{who} interleaves only over several pipeline ranks; use chunks = 1")
    if target.whole_rounds and layout.chunks > 1 and layout.microbatches % layout.pp:
        raise FieldError(
            ("chunks",),
            f"{who} interleaves only when the {layout.microbatches} microbatches are a multiple"
            f" of pp = {layout.pp}; use chunks = 1",
        )


def _list(values: tuple[object, ...]) -> str:
    words = [str(value) for value in values]
    return ", ".join(words[:-1]) + f" or {words[-1]}" if len(words) > 1 else words[0]
