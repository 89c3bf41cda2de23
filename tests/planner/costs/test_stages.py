"""Layers and times of stages."""

from planner.costs import stage_layers
from planner.layout import Layout
from profiles.model import ModelSpec


def test_uneven_layers_leave_the_ends_lighter(gpt: ModelSpec) -> None:
    layers = stage_layers(gpt.model_copy(update={"layers": 50}), Layout(pp=4, global_batch=4))
    assert sum(layers) == 50
    assert layers[0] == layers[-1] == min(layers)


def test_layout_layers_are_taken_as_they_are(gpt: ModelSpec) -> None:
    layout = Layout(pp=3, global_batch=4, layers_per_stage=(20, 20, 8))
    assert stage_layers(gpt, layout) == (20, 20, 8)
