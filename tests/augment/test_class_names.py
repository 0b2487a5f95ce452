"""Class names that hint at a view that changes the label."""

import pytest

from lib.augment.class_names import order_sensitive_classes, view_warnings

ALL_OPS = ["none", "half", "reverse", "drop"]


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ("Pushing something from left to right", "Pushing something from right to left"),
        ("turn_left", "turn_right"),
        ("TurnLeft", "TurnRight"),
        ("spin clockwise", "spin counterclockwise"),
    ],
)
def test_left_and_right_are_confused_by_both_views(first, second):
    groups = order_sensitive_classes(["walk", first, "run", second])
    assert groups == {"flip": [(first, second)], "reverse": [(first, second)]}


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ("Opening something", "Closing something"),
        ("sit down", "stand up"),
        ("sit", "stand"),
        ("Moving something up", "Moving something down"),
        ("Putting something into something", "Taking something out of something"),
        ("Moving something towards the camera", "Moving something away from the camera"),
        ("push-door", "pulls door"),
        ("walking forwards", "walk_backwards"),
        ("Folding something", "Unfolding something"),
        ("come in", "go out"),
    ],
)
def test_directions_of_time_are_confused_by_reversal_alone(first, second):
    groups = order_sensitive_classes(["jump", second, first])
    assert groups == {"flip": [], "reverse": [(second, first)]}


def test_names_without_a_counterpart_are_no_hint():
    classes = ["PushUps", "PullUps", "HandstandPushups", "push", "situp", "stand", "turn left"]
    classes += ["open door", "opens the door", "close window", "under", "der Ball", ""]
    assert order_sensitive_classes(classes) == {"flip": [], "reverse": []}


def test_warnings_name_classes_and_remedy_of_the_views_in_use():
    classes = ["turn left", "turn right", "open", "close"]
    flip, reverse = view_warnings(classes, True, ALL_OPS)
    assert "turn left / turn right" in flip and flip.endswith("set flip: false")
    assert "open / close" in reverse and reverse.endswith("temporal_ops: [none, half, drop]")
    assert view_warnings(classes, False, ALL_OPS) == [reverse]
    assert view_warnings(classes, True, ["none", "half"]) == [flip]
    assert view_warnings(classes, False, ["drop"]) == []


def test_many_groups_are_counted():
    classes = [f"{way} door {number}" for number in range(9) for way in ("open", "close")]
    assert "; and 6 more groups" in view_warnings(classes, True, ["reverse"])[0]
