"""The looking of a graph (live previews, Choose Sketches, Inspect State, the tree that grows) costs less than its search."""

from __future__ import annotations

from looking import measured

LOOKS = {
    "02_choose_by_hand": {"ChooseSketches", "InspectState", "live previews"},
    "03_full_search": {"InspectState", "growing tree"},
}


def test_looking_costs_less_than_the_search(tmp_path):
    """In processor seconds, so that a busy machine tells the same; in the graphs where it is the largest share."""
    found = {name: (search, looks) for name, search, looks in measured(tmp_path / "comfyui", list(LOOKS), seeds=1)}
    for name, expected in LOOKS.items():
        search, looks = found[name]
        assert expected <= {what for what, seconds in looks.items() if seconds > 0}, looks  # the clocks run
        assert sum(looks.values()) < search, f"{name}: {looks} of {search} seconds of search"
