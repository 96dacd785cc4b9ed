"""Dialogues that serve a task: what a student is asked in each turn, and how well it serves.

A turn is three questions to one student: how the *state* changes, what the agent does (its *act*),
and how it says so (its *reply*). What of the dialogue it is shown for that is either compact, the
state and the last acts in place of all that was said, or full, all that was said.

A dialogue is JSON data: ``turns`` with ``user``, ``agent``, ``state`` (``{kind: {slot: value}}``),
``act`` (``[kind, what, {slot: value}]``) and ``known`` (the place that was found, by slot).

References:
    Moradshahi, Semnani, Lam. Zero and few-shot localization of task-oriented dialogue agents with a
    distilled representation. EACL 2023, https://arxiv.org/abs/2302.09424
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Generator, Mapping, Sequence
from pathlib import Path
from typing import Literal, NamedTuple

from jaxdistill.data.documents import json_rows
from jaxdistill.records.requests import Request
from jaxdistill.tasks import dialogue_world as world
from jaxdistill.tasks.dialogue_world import State

History = Literal["compact", "full"]
"""What stands for what was said before."""
NOTHING = "none"
"""What a state without values, or no change, is written as."""
_ACTS = 2  # so many acts of the agent stand before what the user says
_PLAIN = r"[^\s,;:\"]+(?: [^\s,;:\"]+)*"
_SLOT = re.compile(rf"([^\s,;:\"]+) ({_PLAIN}|\"(?:[^\"\\]|\\.)*\")")
_KIND = re.compile(rf"({_PLAIN}) : ({_SLOT.pattern}(?: , {_SLOT.pattern})*)")
_STATE = re.compile(rf"{_KIND.pattern}(?: ; {_KIND.pattern})*")


# --- states and acts as text -------------------------------------------------------------------


def state_text(state: Mapping[str, Mapping[str, str]]) -> str:
    """A state as a student reads and writes it: kinds and slots in the order of the alphabet.

    Example:
        >>> state_text({"hotel": {"price": "cheap", "area": "north"}, "sight": {"area": "east"}})
        'hotel : area north , price cheap ; sight : area east'
        >>> state_text({})
        'none'
    """
    said = [f"{kind} : {_slots_text(slots)}" for kind, slots in sorted(state.items()) if slots]
    return " ; ".join(said) or NOTHING


def read_state(text: str) -> State | None:
    """What :func:`state_text` has written, None of any other text.

    Example:
        >>> read_state("hotel : area north"), read_state("none"), read_state("hotel :")
        ({'hotel': {'area': 'north'}}, {}, None)
    """
    text = " ".join(text.split())
    if text == NOTHING:
        return {}
    if not _STATE.fullmatch(text):
        return None
    found: State = {}
    for kind, slots, *_ in _KIND.findall(text):
        for slot, value in _SLOT.findall(slots):
            known = json.loads(value, strict=False) if value.startswith('"') else value
            found.setdefault(kind, {})[slot] = known
    return found


def act_text(kind: str, what: str, slots: Mapping[str, str]) -> str:
    """An act of an agent as a student reads and writes it.

    Example:
        >>> act_text("hotel", "ask", {"area": ""}), act_text("hotel", "offer", {"name": "lotus"})
        ('hotel ask area', 'hotel offer name lotus')
    """
    return f"{kind} {what} {_slots_text(slots)}"


def _slots_text(slots: Mapping[str, str]) -> str:
    return " , ".join(f"{slot} {_quoted(value)}".strip() for slot, value in sorted(slots.items()))


def _quoted(value: str) -> str:
    """A value as it is, or where it could be read in another way, as JSON writes it."""
    return value if not value or re.fullmatch(_PLAIN, value) else json.dumps(value)


def changed(before: State, after: State) -> State:
    """What a state says that the one before it did not.

    Example:
        >>> changed({"hotel": {"area": "north"}}, {"hotel": {"area": "north", "price": "cheap"}})
        {'hotel': {'price': 'cheap'}}
    """
    found = {}
    for kind, slots in after.items():
        own = {s: v for s, v in slots.items() if before.get(kind, {}).get(s) != v}
        found |= {kind: own} if own else {}
    return found


def applied(before: State, change: State) -> State:
    """A state with a change in it.

    Example:
        >>> applied({"hotel": {"area": "north"}}, {"hotel": {"area": "west"}})
        {'hotel': {'area': 'west'}}
    """
    whole = {kind: {**before.get(kind, {}), **slots} for kind, slots in change.items()}
    return {**before, **whole}


# --- what a student is asked -------------------------------------------------------------------


class Seen(NamedTuple):
    """What is known when a user has spoken.

    Attributes:
        said: all that was said, the user's last words at the end.
        state: before them.
        acts: of the agent so far, as text.
    """

    said: tuple[str, ...]
    state: State
    acts: tuple[str, ...]


def state_prompt(seen: Seen, history: History) -> str:
    """Asks what the user wants: compact for what changes, full for all of it."""
    if history == "full":
        return f"state : {_whole(seen)}"
    before = " ".join(seen.acts[-_ACTS:]) or NOTHING
    return f"state : {state_text(seen.state)} ; {before} ; {seen.said[-1]}"


def act_prompt(seen: Seen, after: State, known: Mapping[str, str], history: History) -> str:
    """Asks what the agent is to do, given the state after the user's words and what was found."""
    found = _slots_text(known) or NOTHING
    if history == "full":
        return f"act : {found} ; {_whole(seen)}"
    before = " ".join(seen.acts[-_ACTS:]) or NOTHING
    return f"act : {found} ; {state_text(after)} ; {before} ; {seen.said[-1]}"


def reply_prompt(act: str, user: str) -> str:
    """Asks how an act is said."""
    return f"reply : {act} ; {user}"


def _whole(seen: Seen) -> str:
    return " ; ".join(seen.said)


# --- serving, from the first word to the last ---------------------------------------------------


class Served(NamedTuple):
    """How a student served a dialogue.

    Attributes:
        states: for each turn, whether the state is right as a whole.
        acts: for each turn, whether the act is.
        tasks: for each kind of place, whether all was said that the user was to hear.
        read: for each turn, whether what was said about the state could be read.
    """

    states: tuple[bool, ...]
    acts: tuple[bool, ...]
    tasks: tuple[bool, ...]
    read: tuple[bool, ...]


Find = Callable[[str, Mapping[str, str]], Mapping[str, str] | None]
"""``(kind of place, what it should be like) -> the place that was found, by slot``."""


def places_of(path: str) -> Find:
    """What looks for places in a file of them.

    Args:
        path: JSON lines, each a place with its ``kind``, what it is like by slot, and under
            ``known`` what is told about it, by slot.

    Raises:
        ValueError: for a line without kind or ``known``, naming it.
    """
    places = []
    for number, row in json_rows(Path(path)):
        if not isinstance(row.get("kind"), str) or not isinstance(row.get("known"), dict):
            raise ValueError(f"line {number} of {path}: a place needs 'kind' and 'known'")
        places.append(row)

    def find(kind: str, wanted: Mapping[str, str]) -> Mapping[str, str] | None:
        for each in places:
            if each["kind"] == kind and all(each.get(s) == v for s, v in wanted.items()):
                return each["known"]
        return None

    return find


def served(
    request: Request, *, history: History = "compact", find: Find = world.foreign_place
) -> Generator[str, str, Served]:
    """Serves a dialogue: yields what the student is asked, is sent what it answers.

    Everything but the user's words is the student's own: the state before a turn, the acts, what
    the agent said, and what is found by the state that it understood.

    Args:
        request: a held-out one of :func:`~jaxdistill.tasks.localising.localised_dialogues`.
        history: what the student is shown of what was said before.
        find: what looks for places.
    """
    turns = request.meta["turns"]
    said: tuple[str, ...] = ()
    acts: tuple[str, ...] = ()
    state: State = {}
    kind, rows, heard = "", [], {}
    for turn in turns:
        seen = Seen((*said, turn["user"]), state, acts)
        understood = read_state((yield state_prompt(seen, history)))
        after = state if understood is None else understood
        if history == "compact":
            after = applied(state, understood or {})
        kind = next(iter(changed(state, after)), kind)
        known = find(kind, after.get(kind, {})) or {}
        act = yield act_prompt(seen, after, known, history)
        reply = yield reply_prompt(act, turn["user"])
        right = act_text(*turn["act"])
        rows.append((after == turn["state"], " ".join(act.split()) == " ".join(right.split()),
                     understood is not None))  # fmt: skip
        heard.setdefault(turn["act"][0], []).extend(
            v for v in turn["act"][2].values() if v and turn["act"][1] != "ask"
        )
        said, acts, state = (*seen.said, reply), (*acts, act), after
    # What counts as heard is heard whoever's turn it was, as published: in all replies together.
    whole = " ".join(said[1::2])
    tasks = tuple(all(value in whole for value in values) for values in heard.values())
    states, right_acts, read = zip(*rows, strict=True)
    return Served(states, right_acts, tasks, read)


def service(found: Sequence[Served]) -> dict[str, float]:
    """How well dialogues were served.

    Args:
        found: of :func:`served`.

    Returns:
        ``joint_goal``, the share of turns whose state is right as a whole; ``acts``, that of turns
        whose act is; ``task_success``, the share of tasks of which the user has heard all, and
        ``dialogue_success`` that of dialogues all of whose tasks succeeded; ``coverage``, the share
        of turns of which the state could be read.

    Example:
        >>> two = [Served((True, False), (True, True), (True,), (True, True))]
        >>> service(two)["joint_goal"]
        0.5
    """

    def share(values: Sequence[bool]) -> float:
        return sum(values) / len(values)

    return {
        "joint_goal": share([x for each in found for x in each.states]),
        "acts": share([x for each in found for x in each.acts]),
        "task_success": share([x for each in found for x in each.tasks]),
        "dialogue_success": share([all(each.tasks) for each in found]),
        "coverage": share([x for each in found for x in each.read]),
    }


SERVICE = ("joint_goal", "acts", "task_success", "dialogue_success", "coverage")
"""The names of what :func:`service` gives."""
