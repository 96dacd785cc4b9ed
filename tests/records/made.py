"""Records for tests."""

import json
from pathlib import Path

from jaxdistill import records
from jaxdistill.records import Message, Provenance, Record
from jaxdistill.records.canonical import identity

GOLDENS = Path(__file__).parents[1] / "goldens" / "records"


def golden(case):
    return json.loads((GOLDENS / f"{case}.json").read_text())


def record(answer="", prompt="question", *, name="", request="", **fields):
    said = (Message("user", prompt), Message("assistant", answer, learn=True))
    came = Provenance("teacher", "1", request)
    name = name or identity(answer, prompt, request, sorted(fields.items(), key=str))
    return Record(name, said, came, raw=answer, answer=answer, **fields)


def kept(function, items, *, seed=0, **settings):
    """The outcome of one step that looks for nothing before it."""
    step = records.step(function, **settings)
    free = step._replace(facts=step.facts._replace(needs=()))
    return records.run(items, [free], seed=seed)


def reasons(outcome):
    return outcome.counts[0]["dropped"]
