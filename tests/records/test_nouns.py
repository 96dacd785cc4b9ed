"""Nouns survive JSON, and their identities depend on content alone."""

import dataclasses
import json
import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jaxdistill.records import (
    Message,
    Provenance,
    Record,
    Request,
    Response,
    Sampling,
    TopTokens,
    Verdict,
    made_from,
    record_of,
)
from jaxdistill.records.canonical import identity, line, plain, read

texts = st.text(st.characters(codec="utf-8"), max_size=20)
messages = st.builds(Message, st.sampled_from(["user", "assistant"]), texts, st.booleans())
verdicts = st.builds(
    Verdict,
    texts,
    st.integers(1, 9),
    texts,
    st.booleans(),
    st.none() | st.floats(allow_nan=False, allow_infinity=False),
    texts,
    texts,
)
made = st.builds(
    Record,
    id=texts,
    messages=st.lists(messages, min_size=1, max_size=3).map(tuple),
    provenance=st.builds(
        Provenance, texts.filter(bool), sampling=st.none() | st.just(Sampling(stop=("a",)))
    ),
    raw=texts,
    reference=st.none() | texts,
    scores=st.dictionaries(texts, st.floats(allow_nan=False, allow_infinity=False), max_size=2),
    history=st.lists(verdicts, max_size=2).map(tuple),
    meta=st.just({"deep": [1, {"a": None}]}),
    top=st.none() | st.just(TopTokens((1, 2), ((1, 3), (2, 4)), ((-0.1, -3.0), (-0.5, -1.0)))),
)


@settings(derandomize=True, max_examples=60, deadline=None, database=None)
@given(made)
def test_a_record_survives_json(record):
    assert read(Record, json.loads(line(record)), "here") == record


def test_a_request_and_a_response_survive_json():
    request = Request.of("a", system="b", reference="c", tests=("d",), sampling=Sampling(n=3))
    assert read(Request, json.loads(line(request)), "here") == request
    response = Response("q", 1, "text", "length", teacher="t", revision="r")
    assert read(Response, json.loads(line(response)), "here") == response


def test_the_order_of_keys_and_the_way_of_an_accent_are_no_content():
    pairs = [("a", 1), ("b", [2, {"c": "e\u0301"}])]
    found = set()
    for _ in range(4):
        random.shuffle(pairs)
        found.add(identity(dict(pairs)))
    assert found == {identity({"a": 1, "b": [2, {"c": "\u00e9"}]})}


@pytest.mark.parametrize("field", [f.name for f in dataclasses.fields(Request)])
def test_every_field_of_a_request_is_in_its_id(field):
    request = Request.of("a", source="s")
    others = {
        "messages": (Message("user", "b"),),
        "prompt": (Message("user", "b"),),
        "sampling": Sampling(seed=1),
        "tests": ("t",),
        "meta": {"k": 1},
    }
    if field == "schema":
        with pytest.raises(ValueError, match="schema 2, this library reads 1"):
            dataclasses.replace(request, schema=2)
        return
    other = dataclasses.replace(request, **{field: others.get(field, "other")})
    assert other.id != request.id


def test_a_question_is_what_the_teacher_sees_and_nothing_else():
    asked = Request.of("a", source="s", reference="secret", sampling=Sampling(n=2))
    same = Request.of("a", source="other", meta={"x": 1}, sampling=Sampling(n=5))
    assert asked.questions()[0].id == same.questions()[0].id
    assert "secret" not in line(asked.questions()[0])
    one, two = asked.questions()
    assert one.id == two.id
    assert one.seed != two.seed
    assert 0 <= one.seed < 2**31
    changed = Request.of("a", sampling=Sampling(temperature=0.5)).questions()[0]
    assert changed.id != one.id


def test_the_student_may_be_asked_something_else():
    request = Request.of("think step by step: 1+1?", prompt=(Message("user", "1+1?"),))
    question = request.questions()[0]
    record = record_of(request, Response(question.id, 0, "2", teacher="t"))
    assert [m.content for m in record.messages] == ["1+1?", "2"]
    assert record.asked == request.messages
    assert record.prompt == request.prompt


def test_made_records_name_their_parents():
    request = Request.of("a")
    question = request.questions()[0]
    parent = record_of(request, Response(question.id, 0, "2", teacher="t"))
    first, second = (made_from([parent], "copied", number) for number in (0, 1))
    assert len({parent.id, first.id, second.id}) == 3
    assert first.provenance.parents == (parent.id,)
    assert first.provenance.teacher == "t"


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: Message("asistant", "a"), "did you mean 'assistant'"),
        (lambda: Message("user", 3), "is text, not 3"),
        (lambda: Message("user", "\ud800"), "half a character"),
        (lambda: Sampling(temperature=-1), "temperature=-1 must be"),
        (lambda: Sampling(temperature=float("nan")), "temperature=nan must be"),
        (lambda: Sampling(n=0), "n=0 must be"),
        (lambda: Sampling(top_p=0.0), "leaves no token"),
        (lambda: Request(()), "needs messages"),
        (lambda: Provenance(""), "needs its teacher"),
        (lambda: Record("a", (), None), "needs its teacher"),
        (lambda: Response("q", 0, None), "is text, not None"),
        (lambda: TopTokens((1,), ((1, 2),), ((0.0,),)), "do not fit together"),
        (lambda: line({"a": float("inf")}), "not JSON compliant"),
        (lambda: plain({1, 2}), "JSON has no set"),
        (lambda: read(Message, {"role": "user"}, "line 3"), "line 3: a Message needs 'content'"),
        (
            lambda: read(Message, {"role": "user", "content": "", "lern": True}, "line 3"),
            "did you mean 'learn'",
        ),
        (lambda: read(Response, {"question": "", "sample": "x", "text": ""}, "f"), "sample: it is"),
        (
            lambda: read(Response, {"question": "", "sample": 0, "text": "", "finish": "no"}, "f"),
            "Possible: 'failed', 'length', 'stop'",
        ),
    ],
)
def test_what_is_refused(make, said):
    with pytest.raises(ValueError, match=said):
        make()
