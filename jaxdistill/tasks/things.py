"""A small world of things, where they are, what they do and what they have."""

from __future__ import annotations

from collections.abc import Mapping

KINDS: Mapping[str, tuple[tuple[str, ...], Mapping[str, tuple[str, ...]]]] = {
    "bird": (
        (
            "robin", "sparrow", "finch", "wren", "thrush",
            "lark", "swallow", "magpie", "starling", "jay",
        ),
        {
            "place": ("the woods", "a nest"),
            "act": ("fly", "sing"),
            "part": ("feathers", "a beak"),
        },
    ),
    "fish": (
        (
            "trout", "salmon", "carp", "herring", "cod",
            "perch", "pike", "tuna", "eel", "sardine",
        ),
        {
            "place": ("the sea", "a river"),
            "act": ("swim", "dive"),
            "part": ("fins", "scales"),
        },
    ),
    "grazer": (
        (
            "cow", "sheep", "goat", "horse", "donkey",
            "deer", "bison", "llama", "camel", "antelope",
        ),
        {
            "place": ("a meadow", "a stable"),
            "act": ("graze", "gallop"),
            "part": ("hooves", "fur"),
        },
    ),
    "vehicle": (
        (
            "car", "bus", "truck", "van", "taxi",
            "tractor", "scooter", "lorry", "jeep", "tram",
        ),
        {
            "place": ("a garage", "the street"),
            "act": ("brake", "hoot"),
            "part": ("wheels", "a motor"),
        },
    ),
    "tool": (
        (
            "hammer", "saw", "chisel", "axe", "spade",
            "rake", "wrench", "plane", "file", "drill",
        ),
        {
            "place": ("a workshop", "a shed"),
            "act": ("rust", "break"),
            "part": ("a handle", "steel"),
        },
    ),
    "fruit": (
        (
            "apple", "pear", "plum", "peach", "cherry",
            "lemon", "orange", "mango", "melon", "fig",
        ),
        {
            "place": ("a bowl", "an orchard"),
            "act": ("ripen", "rot"),
            "part": ("seeds", "a peel"),
        },
    ),
    "instrument": (
        (
            "violin", "cello", "guitar", "harp", "lute",
            "banjo", "viola", "piano", "zither", "mandolin",
        ),
        {
            "place": ("an orchestra", "a case"),
            "act": ("sound", "resonate"),
            "part": ("strings", "keys"),
        },
    ),
    "worker": (
        (
            "baker", "tailor", "nurse", "teacher", "farmer",
            "pilot", "lawyer", "waiter", "painter", "miner",
        ),
        {
            "place": ("an office", "a canteen"),
            "act": ("speak", "laugh"),
            "part": ("hands", "a name"),
        },
    ),
}  # fmt: skip
"""Kinds of things: their names, and for each aspect what is so of all of them. What is so of
another kind is not so of this one."""


def tails(about: str) -> list[str]:
    """All that may be said of things in one aspect.

    Example:
        >>> len(tails("place"))
        16
    """
    return [each for _, known in KINDS.values() for each in known[about]]


def truth(head: str) -> Mapping[str, tuple[str, ...]]:
    """What is so of a thing.

    Raises:
        ValueError: for one of another world.

    Example:
        >>> truth("trout")["act"]
        ('swim', 'dive')
    """
    for heads, known in KINDS.values():
        if head in heads:
            return known
    raise ValueError(f"no thing of the small world: {head!r}")
