"""Who writes records, by name: a server, a decoder, a file of answers, a script."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from jaxdistill import language, records
from jaxdistill.records.canonical import identity
from jaxdistill.registry.context import Context
from jaxdistill.registry.entries import Entry, call, forwarding
from jaxdistill.registry.tasks import SCRIPTS
from jaxdistill.settings import Count


@forwarding(records.served, "name")
def _server(context: Context, *, server: records.Server, **rest: Any) -> Any:
    return records.served(server, name=context.term, **rest)


@forwarding(records.replay)
def _replay(context: Context, *, path: str, **rest: Any) -> Any:
    return records.replay(path, **rest)._replace(name=context.term)


def _scripted(context: Context, *, script: Mapping[str, Any]) -> Any:
    function = call("script", SCRIPTS, script, context, "script")
    revision = identity(dict(script))[:12]
    return records.scripted(function, name=context.term, revision=revision)


@forwarding(language.decoder_teacher, "name", "revision", "mesh", "context")
def _decoder(context: Context, *, length: Count, **rest: Any) -> Any:
    """``length`` are the most tokens of a question and its answer together."""
    if context.teacher is None:
        raise ValueError("teacher 'decoder' is the net of an earlier stage: name it by 'decoder'")

    def made(results: Mapping[str, Any]) -> records.Teacher:
        variables = results[context.teacher_name]
        chat = context.info["chat"]
        return language.decoder_teacher(
            context.teacher, variables, chat, name=context.term, context=length, **rest
        )

    return made


TEACHERS: dict[str, Entry] = {
    "decoder": _decoder,
    "replay": _replay,
    "scripted": _scripted,
    "server": _server,
}
