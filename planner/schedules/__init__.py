"""Pipeline schedules as data: build, check, simulate, lower, draw."""

from planner.schedules.action import Action, Kind, Message, Schedule, loop_placement, v_placement
from planner.schedules.blocking import simulate_lowered
from planner.schedules.check import check, check_cells, check_parsed
from planner.schedules.chrome_trace import chrome_trace, read_chrome_trace
from planner.schedules.families import AUTO, FAMILIES, build, find_family
from planner.schedules.family import Family, ScheduleError
from planner.schedules.lower import LoweredAction, LoweredSchedule, lower, prove_order
from planner.schedules.memory import peak_activations, peak_stage_activations
from planner.schedules.messages import check_lowered
from planner.schedules.refusal import ScheduleRefused
from planner.schedules.shared import simulate_shared
from planner.schedules.simulate import simulate
from planner.schedules.steady import steady_cycle, steady_weight_versions
from planner.schedules.step import Cell, RankShare, StepTimeline, simulated_step, step_cells
from planner.schedules.text import ParsedSchedule, lowered_to_csv, parse_schedule, to_csv, to_data
from planner.schedules.timeline import Timeline
from planner.schedules.times import StageTimes
from planner.schedules.versions import forward_versions, updates_of, weight_versions

__all__ = [
    "AUTO",
    "FAMILIES",
    "Action",
    "Cell",
    "Family",
    "Kind",
    "LoweredAction",
    "LoweredSchedule",
    "Message",
    "ParsedSchedule",
    "RankShare",
    "Schedule",
    "ScheduleError",
    "ScheduleRefused",
    "StageTimes",
    "StepTimeline",
    "Timeline",
    "build",
    "check",
    "check_cells",
    "check_lowered",
    "check_parsed",
    "chrome_trace",
    "find_family",
    "forward_versions",
    "loop_placement",
    "lower",
    "lowered_to_csv",
    "parse_schedule",
    "peak_activations",
    "peak_stage_activations",
    "prove_order",
    "read_chrome_trace",
    "simulate",
    "simulate_lowered",
    "simulate_shared",
    "simulated_step",
    "steady_cycle",
    "steady_weight_versions",
    "step_cells",
    "to_csv",
    "to_data",
    "updates_of",
    "v_placement",
    "weight_versions",
]
