"""Teacher-written data: from requests to shards, with proof of where every record came from.

::

    requests -> teacher -> records -> steps -> shards

Requests are asked, answers are kept, records are made of them, steps decide about every record, and
what remains is written beside what was dropped and a manifest. Two runs write the same bytes,
whatever the order of the answers; one that was killed resumes; a second one asks nothing.
"""

from jaxdistill.records.answers import Answers, Teacher, ask
from jaxdistill.records.chats import Chat, Encoded, chat
from jaxdistill.records.conversations import conversation_splits, conversations
from jaxdistill.records.eliciting import curate, expand
from jaxdistill.records.nouns import Provenance, Record, Verdict, made_from, record_of
from jaxdistill.records.rankings import rankings
from jaxdistill.records.requested import request_splits, requested
from jaxdistill.records.requests import (
    ROLES,
    SCHEMA,
    Message,
    Question,
    Request,
    Response,
    Sampling,
    TopTokens,
)
from jaxdistill.records.running import Outcome, refuse_order, refuse_unsteady, run
from jaxdistill.records.server import Server
from jaxdistill.records.shards import Dropped, Written, open_written
from jaxdistill.records.steps import Decision, Step, deciding, step
from jaxdistill.records.teachers import replay, scripted, served
from jaxdistill.records.templates import Template, chatml, plain, template_of
from jaxdistill.records.writing import write

__all__ = [
    "ROLES",
    "SCHEMA",
    "Answers",
    "Chat",
    "Decision",
    "Dropped",
    "Encoded",
    "Message",
    "Outcome",
    "Provenance",
    "Question",
    "Record",
    "Request",
    "Response",
    "Sampling",
    "Server",
    "Step",
    "Teacher",
    "Template",
    "TopTokens",
    "Verdict",
    "Written",
    "ask",
    "chat",
    "chatml",
    "conversation_splits",
    "conversations",
    "curate",
    "deciding",
    "expand",
    "made_from",
    "open_written",
    "plain",
    "rankings",
    "record_of",
    "refuse_order",
    "refuse_unsteady",
    "replay",
    "request_splits",
    "requested",
    "run",
    "scripted",
    "served",
    "step",
    "template_of",
    "write",
]
