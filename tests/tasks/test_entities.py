"""Entities of any type: what is asked, how answers become questions, how students are scored."""

import json
import re
from pathlib import Path

import pytest

from jaxdistill import records
from jaxdistill.records.balance import negatives
from jaxdistill.tasks import entities
from jaxdistill.tasks.answered import Answered
from jaxdistill.tasks.passages import gazetteer, invented, tagged

GOLDEN = Path(__file__).parents[1] / "goldens" / "records" / "entities_universal_ner.json"
HIDDEN = ("northern river", "southern ship")


def asked(split="train", **settings):
    sizes = {
        "train": 60,
        "validation_passages": 2,
        "test_passages": 3,
        "unseen": HIDDEN,
        **settings,
    }
    return [each for each in entities.entities(**sizes) if each.split == split]


def written(folder, *steps, **errors):
    def script(question):
        return entities.name_entities(question, **errors)

    teacher = records.scripted(script, name="tagger", revision=str(errors))
    made = [records.step(entities.asked_by_type, without=HIDDEN), *steps]
    return records.write(asked(), teacher, folder, after=made)


def test_the_score_is_the_published_one():
    case = json.loads(GOLDEN.read_text())
    pairs = [Answered("", p, g) for p, g in zip(case["preds"], case["golds"], strict=True)]
    for each, expected in zip(pairs, case["per_pair"], strict=True):
        found = entities.set_f1([each])
        assert {k: found[k] for k in expected} == pytest.approx(expected, abs=1e-12), each
    found = entities.set_f1(pairs)
    assert {k: found[k] for k in case["micro"]} == pytest.approx(case["micro"], abs=1e-12)


def test_absent_and_unseen_types_are_counted_apart():
    answers = [
        Answered("", "[]", "[]", "entities"),
        Answered("", '["Rome"]', "[]", "entities"),
        Answered("", "Rome", "[]", "entities"),
        Answered("", '["Rome"]', '["Rome"]', "entities"),
        Answered("", '["Oslo"]', '["Oslo"]', "unseen"),
    ]
    found = entities.set_f1(answers)
    assert found["absent"] == pytest.approx(2 / 3)
    assert found["precision"] == pytest.approx(1 / 2)
    assert found["recall"] == pytest.approx(1.0)
    assert found["unseen_f1"] == pytest.approx(1.0)
    assert set(found) == set(entities.set_f1.metrics)
    assert entities.set_f1([])["f1"] == 0.0


def test_students_are_asked_about_every_type_of_passages_that_no_teacher_saw():
    train, test = asked(), asked("test")
    texts = {each.conversation[1].content for each in train}
    assert len(texts) == len(train) == 60
    kinds = {kind for kinds in gazetteer().values() for kind in kinds}
    assert len(test) == 3 * len(kinds)
    assert not texts & {each.conversation[1].content for each in test}
    assert {each.task for each in test} == {"entities", "unseen"}
    for each in test:
        kind = re.fullmatch("What describes (.*) in the text\\?", each.messages[-1].content)[1]
        assert (each.task == "unseen") == (kind in HIDDEN)
        for name in json.loads(each.reference):
            assert kind in gazetteer()[name]
    # The teacher is never shown what is right, and another seed has other passages.
    assert all(each.reference not in each.messages[-1].content for each in train)
    assert texts != {each.conversation[1].content for each in asked(seed=1)}


def test_a_faultless_teacher_gives_the_truth(tmp_path):
    found = written(tmp_path / "set", missed=0.0, wrong=0.0, broken=0.0)
    truth = entities.entity_truth(found, {each.id: each for each in asked()})
    assert truth["right"] == truth["found"] == 1.0
    assert truth["negatives"] == 0.0
    for each in found.records():
        assert [m.learn for m in each.messages] == [False] * (len(each.messages) - 1) + [True]
        assert each.meta["type"] not in HIDDEN


def test_negatives_are_types_that_the_passage_does_not_have(tmp_path):
    steps = [records.step(negatives, ratio=1.0), records.step(entities.joined, most=4)]
    found = written(tmp_path / "set", *steps, missed=0.0, wrong=0.0, broken=0.0)
    truth = entities.entity_truth(found, {each.id: each for each in asked()})
    assert truth["right"] == truth["found"] == 1.0
    assert truth["negatives"] == pytest.approx(0.5, abs=0.01)
    known = {each.meta["passage"]: json.loads(each.reference) for each in asked()}
    orders = set()
    for each in found.records():
        assert 2 <= len(each.meta["types"]) <= 4 or len(each.messages) == 5
        assert [m.learn for m in each.messages[3:]] == [False, True] * len(each.meta["types"])
        for kind, names in entities.questions_in(each):
            assert names == [n for n, its in known[each.meta["passage"]] if its == kind]
            assert kind not in HIDDEN
        orders.add(tuple(bool(names) for _, names in entities.questions_in(each)))
    assert len(orders) > 4  # positives and negatives stand in any order


def test_an_erring_teacher_errs_as_often_as_said(tmp_path):
    found = written(tmp_path / "set", missed=0.2, wrong=0.1, broken=0.3)
    counts = found.manifest["after"][0]["dropped"]
    assert 8 <= counts["no list of pairs"] <= 28  # 18 of 60 are expected
    truth = entities.entity_truth(found, {each.id: each for each in asked()})
    assert 0.84 < truth["right"] < 0.97


def test_what_is_not_in_the_passage_is_left_out_and_what_is_no_list_is_dropped():
    assert entities.pairs_in('[["A", "B"], ["C"]]') is None
    assert entities.pairs_in('[["A", 3]]') is None
    assert entities.pairs_in('{"A": "B"}') is None
    assert entities.pairs_in('[[" A ", "Big  City"]]') == [("A", "big city")]
    request = asked()[0]
    said = iter(['[["Atlantis", "city"]]', "none", "[]"])
    for reason in ("no entities", "no list of pairs", "no entities"):
        answer = records.Response(request.questions()[0].id, 0, next(said), teacher="t")
        made = entities.asked_by_type([records.record_of(request, answer)], 0)
        assert [(each.keep, each.reason) for each in made] == [(False, reason)]


def test_tagged_files_are_read(tmp_path):
    path = tmp_path / "some.jsonl"
    rows = [
        {"tokens": ["Ana", "Pop", "la", "Cluj", "Napoca", "Dej"],
         "tags": ["B-PERSON", "I-PERSON", "O", "B-GPE", "I-GPE", "B-GPE"]},
        {"tokens": ["Opera", "de", "aur", "nu"],
         "tags": ["I-WORK_OF_ART", "I-WORK_OF_ART", "B-LOC", "I-GPE"]},
    ]  # fmt: skip
    path.write_text("\n".join(map(json.dumps, rows)))
    first, second = tagged(str(path))
    assert first.entities == (("Ana Pop", "person"), ("Cluj Napoca", "gpe"), ("Dej", "gpe"))
    assert second.entities == (("Opera de", "work of art"), ("aur", "loc"), ("nu", "gpe"))
    assert first.of("gpe") == ["Cluj Napoca", "Dej"]
    found = entities.entities(path=str(path), train=1, validation_passages=0, test_passages=1)
    (train,) = (each for each in found if each.split == "train")
    question = train.questions()[0]
    sure = {"missed": 0.0, "wrong": 0.0, "broken": 0.0, "path": str(path)}
    assert entities.name_entities(question, **sure) == train.reference
    with pytest.raises(ValueError, match="no passage"):
        entities.name_entities(asked()[0].questions()[0], path=str(path))


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"tokens": ["a"]}, "line 1 of .* needs 'tokens' and 'tags'"),
        ({"tokens": ["a"], "tags": ["O", "O"]}, "one for each token"),
        ({"tokens": ["a"], "tags": ["PERSON"]}, "O, B-<type> or I-<type>"),
    ],
)
def test_bad_files_are_refused(tmp_path, row, message):
    path = tmp_path / "some.jsonl"
    path.write_text(json.dumps(row))
    with pytest.raises(ValueError, match=message):
        tagged(str(path))


def test_bad_settings_are_refused(tmp_path):
    with pytest.raises(ValueError, match="unseen type 'planet' is none of"):
        asked(unseen=("planet",))
    path = tmp_path / "some.jsonl"
    path.write_text(json.dumps({"tokens": ["a"], "tags": ["O"]}))
    with pytest.raises(ValueError, match="has 1 passages, fewer than 65"):
        asked(path=str(path))
    with pytest.raises(ValueError, match="'joined', needs questions of one type"):
        records.refuse_order([records.step(entities.joined)])


def test_passages_are_read_apart_from_what_they_name():
    passages = invented(200, 3)
    assert len({each.text for each in passages}) == 200
    for each in passages:
        assert all(name in each.text for name, _ in each.entities)
    assert {kind for each in passages for _, kind in each.entities} >= set(HIDDEN)
