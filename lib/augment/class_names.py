"""Class names that a horizontal flip or a reversal may turn into the name of another class."""

import re
from collections.abc import Sequence

MIRRORED = {"left": "right", "clockwise": "counterclockwise anticlockwise"}
REVERSED = MIRRORED | {  # words of one direction: words of the other
    "up": "down",
    "open": "close shut",
    "sit": "stand",
    "in into inside": "out outside",
    "on onto": "off",
    "push": "pull",
    "forward": "backward back",
    "toward closer approach": "away",
    "enter arrive come": "exit leave depart go",
    "put insert place": "take remove pick",
    "raise lift rise": "lower drop fall",
    "throw": "catch",
    "attach": "detach",
    "inflate": "deflate",
    "fill": "empty",
    "start": "stop",
}
IGNORED = {"a", "an", "the", "of", "from", "to", "and", "then"}
MAX_NAMED = 3  # groups of classes in a warning


def _stem(word: str) -> str:
    """Return a word without its ending: closing, closed, closes and close become clos."""
    word = re.sub(r"(?<=\w\w)(ing|ed|es|s|e)$", "", word)
    return word[:-1] if len(word) > 2 and word[-1] == word[-2] else word


def _directions(opposites: dict[str, str]) -> dict[str, tuple[str, int]]:
    """Return stem -> (name of its pair, 0 or 1 for its direction)."""
    pairs = [(first.split(), second.split()) for first, second in opposites.items()]
    return {
        _stem(word): (first[0], direction)
        for first, second in pairs
        for direction, words in enumerate((first, second))
        for word in words
    }


def _words(name: str, opposites: dict[str, str]) -> list[tuple[str, int]]:
    """Return the words of a class name, each with its direction; 0 for words without one."""
    text = re.sub(r"(?<=[a-z])(?=[A-Z])", " ", name).lower()  # PushUps
    text = re.sub(r"[\W_]+ups\b", "ups", text)  # an exercise, no direction
    table, words = _directions(opposites), []
    for word in re.findall(r"[^\W_]+", text):
        stem = _stem(word)
        if stem.startswith("un") and opposites is REVERSED:  # fold, unfold
            words.append((stem[2:], 1))
        elif word not in IGNORED:
            words.append(table.get(stem, (stem, 0)))
    return words


def _groups(classes: Sequence[str], opposites: dict[str, str]) -> list[tuple[str, ...]]:
    """Return the classes whose names differ in nothing but the directions of their words."""
    groups: dict[tuple, dict[tuple, list[str]]] = {}
    for name in classes:
        words = _words(name, opposites)
        same = groups.setdefault(tuple(sorted(word for word, _ in words)), {})
        same.setdefault(tuple(direction for _, direction in words), []).append(name)
    return [tuple(sum(same.values(), [])) for same in groups.values() if len(same) > 1]


def order_sensitive_classes(classes: Sequence[str]) -> dict[str, list[tuple[str, ...]]]:
    """Return the groups of classes that each view may confuse, judged by their names alone.

    Two classes are in a group if their names are equal but for words of opposite direction, such as
    "pushing left" and "pushing right", or "sit down" and "stand up". `flip` are classes that a
    horizontal flip may turn into each other, `reverse` those that playing backwards may.
    """
    return {"flip": _groups(classes, MIRRORED), "reverse": _groups(classes, REVERSED)}


def view_warnings(classes: Sequence[str], flip: bool, temporal_ops: Sequence[str]) -> list[str]:
    """Return a sentence for each view of a run that may turn one class into another."""
    groups, warnings = order_sensitive_classes(classes), []
    kept = [name for name in temporal_ops if name != "reverse"] or ["none"]
    remedies = {
        "flip": ("the horizontal flip", "flip: false", flip),
        "reverse": ("T-Reverse", f"temporal_ops: [{', '.join(kept)}]", "reverse" in temporal_ops),
    }
    for view, (title, remedy, is_used) in remedies.items():
        if is_used and groups[view]:
            named = "; ".join(" / ".join(group) for group in groups[view][:MAX_NAMED])
            rest = len(groups[view]) - MAX_NAMED
            named += f"; and {rest} more groups" if rest > 0 else ""
            warnings.append(f"{title} may turn classes into each other ({named}): set {remedy}")
    return warnings
