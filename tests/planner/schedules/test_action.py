from planner.schedules.action import Action, Kind, cells


def test_cells_are_actions_in_the_order_of_their_microbatches() -> None:
    made = cells(Kind.I, 3, (4, 1))
    assert made == [Action(Kind.I, 3, 4), Action(Kind.I, 3, 1)]
    assert all(isinstance(cell, Action) for cell in made)
    assert [str(cell) for cell in made] == ["3I4", "3I1"]
