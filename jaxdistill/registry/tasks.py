"""Tasks of teacher-written data by name, with their scripts, scores, measures and plays."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

from jaxdistill import language
from jaxdistill.evaluation.measuring import measuring
from jaxdistill.registry.context import Context
from jaxdistill.registry.entries import Entry, forwarding
from jaxdistill.tasks import (
    answered,
    commonsense,
    dialogue_world,
    dialogues,
    entities,
    frontier,
    gradings,
    localising,
    reasoning,
)


def plain(function: Callable[..., Any]) -> Entry:
    """A function of settings alone as an entry."""

    @forwarding(function)
    def entry(context: Context, **settings: Any) -> Any:
        return function(**settings)

    return entry


def settled(function: Callable[..., Any]) -> Entry:
    """A function with settings as an entry that gives it with these, not called yet."""

    @forwarding(function)
    def entry(context: Context, **settings: Any) -> Any:
        made = functools.partial(function, **settings)
        names = getattr(function, "metrics", None)
        return made if names is None else measuring(names, made)

    return entry


def drawn(function: Callable[..., Any]) -> Entry:
    """A task whose world is drawn from the seed of the run as an entry."""

    @forwarding(function, "seed")
    def entry(context: Context, **settings: Any) -> Any:
        return function(seed=context.seed, **settings)

    return entry


TASKS: dict[str, Entry] = {
    "commonsense": drawn(commonsense.commonsense),
    "dialogues_of_file": plain(localising.dialogues_of_file),
    "entities": drawn(entities.entities),
    "gradings": drawn(gradings.gradings),
    "gradings_of_file": plain(gradings.gradings_of_file),
    "localised_dialogues": drawn(localising.localised_dialogues),
    "reports": drawn(frontier.reports),
    "traces": drawn(reasoning.traces),
    "worked": drawn(frontier.worked),
}
"""``(**settings) -> requests``, all parts of the data set."""

SCRIPTS: dict[str, Entry] = {
    "confirm_tails": settled(commonsense.confirm_tails),
    "grader": settled(gradings.grader),
    "name_entities": settled(entities.name_entities),
    "solver": settled(frontier.solver),
    "summariser": settled(frontier.summariser),
    "tell_tails": settled(commonsense.tell_tails),
    "thinker": settled(reasoning.thinker),
    "translator": settled(dialogue_world.translator),
}
"""``(question, **settings) -> text``, a teacher of known errors."""

SCORES: dict[str, Entry] = {
    "density": settled(frontier.density),
    "exact": settled(answered.exact),
    "numbers": settled(frontier.numbers),
    "rank_agreement": settled(gradings.rank_agreement),
    "right_share": settled(commonsense.right_share),
    "set_f1": settled(entities.set_f1),
    "solved": settled(reasoning.solved),
}
"""``(answers, **settings) -> {name: number}``."""

MEASURES: dict[str, Entry] = {
    "acceptance": settled(commonsense.acceptance),
    "entity_truth": settled(entities.entity_truth),
    "planted": settled(reasoning.planted),
    "translations": settled(localising.translations),
}
"""``(written, requests, **settings) -> {name: number}``."""


def _service(
    context: Context, *, history: dialogues.History = "compact", places: str = ""
) -> language.Play:
    """Whole dialogues, ``places`` being a file of what can be found; the world's by default."""
    find = dialogues.places_of(places) if places else dialogue_world.foreign_place
    start = functools.partial(dialogues.served, history=history, find=find)
    return language.Play(start, dialogues.service, dialogues.SERVICE)


PLAYS: dict[str, Entry] = {"service": _service}
"""``(**settings) -> Play``, conversations that a student's own answers lead."""
