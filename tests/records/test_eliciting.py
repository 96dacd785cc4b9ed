"""Requests that nobody has written, and answers with rewards."""

import json

import numpy as np
import pytest
from records.made import record

from jaxdistill import records
from jaxdistill.data.tokenizers import byte_tokenizer
from jaxdistill.records import Answers, Sampling, curate, expand, rankings, scripted
from jaxdistill.records.judging import preferred

CHAT = records.chat(byte_tokenizer(), records.plain())
GRID = {"topic": ["angles", "sums"], "level": ["easy", "hard", "cruel"]}


def test_a_grid_asks_for_every_combination_once():
    found = curate("A {level} exercise about {topic}.", GRID, each=5, name="exercises")
    assert len({each.id for each in found}) == 6
    assert {each.source for each in found} >= {"exercises/angles/easy", "exercises/sums/cruel"}
    assert found[0].meta == {"topic": "angles", "level": "easy"}
    assert found[0].messages[-1].content == "A easy exercise about angles."
    assert {each.sampling.n for each in found} == {5}
    drawn = curate("{topic} {level}", GRID, sampling=Sampling(temperature=0.3, seed=4))
    assert {(each.sampling.temperature, each.sampling.seed) for each in drawn} == {(0.3, 4)}


@pytest.mark.parametrize(
    ("question", "grid", "message"),
    [
        ("About {topik}.", GRID, "unknown name in the question 'topik': did you mean 'topic'"),
        ("About {topic}.", GRID, "the question does not ask for 'level'"),
        ("About {topic}.", {"topic": []}, "'topic' has no values"),
    ],
)
def test_a_grid_that_does_not_fit_is_refused(question, grid, message):
    with pytest.raises(ValueError, match=message):
        curate(question, grid)


def made_up(asked):
    """A teacher that puts the words of its examples together, and repeats itself."""

    def script(question):
        asked.append(question.id)
        shown = question.messages[-1].content.split(", ")
        return "\n".join([shown[0], f"{shown[0]} {shown[-1]}", f"{shown[-1]} {shown[0]}", ""])

    return scripted(script, name="maker", revision="1")


def expanded(asked, answers=None, **settings):
    how = {"rounds": 3, "questions": 4, "shown": 2, "threshold": 0.9, **settings}
    seeds = ["red fox", "old owl", "big bear"]
    return expand(seeds, made_up(asked), ", ".join, str.splitlines, answers=answers, **how)


def test_items_are_made_up_from_items_and_each_is_new():
    asked, answers = [], Answers()
    found = expanded(asked, answers)
    texts = [each.answer for each in found]
    assert len(set(texts)) == len(texts) > 12
    assert not {"red fox", "old owl", "big bear"} & set(texts)
    # Later rounds are shown what earlier ones made up.
    shown = [example for each in found for example in each.meta["examples"]]
    assert set(shown) & set(texts)
    assert {each.meta["round"] for each in found} == {0, 1, 2}
    # Every one says who made it up, when asked what.
    assert {each.provenance.teacher for each in found} == {"maker"}
    assert all(each.provenance.parents for each in found)
    assert len({each.id for each in found}) == len(found)
    # A second run asks nothing and finds the same; another seed shows others.
    before = len(asked)
    assert expanded(asked, answers) == found
    assert len(asked) == before
    assert [each.answer for each in expanded([], seed=1)] != texts


def test_what_is_alike_is_not_new():
    assert len(expanded([], threshold=0.6)) < len(expanded([], threshold=0.95))
    with pytest.raises(ValueError, match="expand needs seeds"):
        expand([], made_up([]), ", ".join, str.splitlines)


def test_a_failed_question_is_said(tmp_path):
    path = tmp_path / "answers.jsonl"
    path.write_text(json.dumps({"question": "x", "sample": 0, "text": "", "teacher": "t"}) + "\n")
    with pytest.raises(ValueError, match="questions failed"):
        expand(["a"], records.replay(path), str, str.splitlines)


def ranked(prompt, **scores):
    items = [
        record(text, prompt, request=prompt, scores={"score": s}) for text, s in scores.items()
    ]
    (found,) = (d.record for d in preferred(items, 0) if d.keep)
    return found


def test_ranked_answers_become_arrays():
    two, four = ranked("a", good=1.0, bad=0.0), ranked("b", x=0.1, y=0.9, z=0.5, w=0.3)
    found = rankings([four, two], CHAT, 12, most=3)
    order = sorted([two, four], key=lambda each: each.id)
    expected = {two.id: [1.0, 0.0, -np.inf], four.id: [0.9, 0.5, 0.1]}
    np.testing.assert_allclose(found["reward"], [expected[each.id] for each in order])
    words = {two.id: ["good", "bad"], four.id: ["y", "z", "x"]}
    for row, each in enumerate(order):
        for place, word in enumerate(words[each.id]):
            counted = found["counted"][row, place]
            assert bytes(found["label"][row, place][counted][:-1].tolist()).decode() == word
            # What is asked is the same in all, and is not learnt.
            start = int(counted.argmax())
            assert bytes(found["tokens"][row, place][: start + 1].tolist()).decode().endswith("\n")
    assert not found["counted"][found["reward"] == -np.inf].any()


def test_answers_that_do_not_fit_or_have_no_rank_are_refused():
    long = ranked("a", good=1.0, **{"far too long": 0.0})
    assert len(rankings([long, ranked("b", x=1.0, y=0.0)], CHAT, 8)["reward"]) == 1
    with pytest.raises(ValueError, match="none of 1 records fits 8 tokens"):
        rankings([long], CHAT, 8)
    with pytest.raises(ValueError, match="no answers ranked by 'score': the step 'preferred'"):
        rankings([record("a")], CHAT, 8)
    with pytest.raises(ValueError, match="no answers ranked by 'grade'"):
        rankings([long], CHAT, 8, by="grade")
    with pytest.raises(ValueError, match=r"answer '': message 1 .* says nothing"):
        rankings([ranked("a", x=1.0, **{"": 0.0})], CHAT, 8)
    with pytest.raises(ValueError, match="most=1"):
        rankings([long], CHAT, 8, most=1)
