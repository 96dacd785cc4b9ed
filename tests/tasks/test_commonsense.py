"""Commonsense triples: what is asked, and asking a critic again about what is not so."""

import json

import pytest

from jaxdistill import records
from jaxdistill.registry import steps
from jaxdistill.registry.context import Context
from jaxdistill.tasks import commonsense
from jaxdistill.tasks.answered import Answered
from jaxdistill.tasks.commonsense import RELATIONS, Critic, accepted_share, right_tails, stays
from jaxdistill.tasks.things import KINDS, tails, truth


def asked(**settings):
    found = commonsense.commonsense(**settings)
    return {each.id: each for each in found if each.split == "train"}


def critic(**settings):
    def script(question):
        return commonsense.confirm_tails(question, **settings)

    return Critic(records.scripted(script, name="critic", revision=str(settings)))


def written(folder, *, votes=0, seed=0, errors=(0.1, 0.3), **settings):
    def script(question):
        return commonsense.tell_tails(question, wrong=errors[0], wrong_negative=errors[1])

    teacher = records.scripted(script, name="writer", revision=str(errors))
    again = {"critic": critic(**settings), "votes": votes}
    after = [records.step(commonsense.confirmed, **again)] if votes else []
    return records.write(asked().values(), teacher, folder, after=after, seed=seed)


def test_the_world_has_no_doubts():
    heads = [head for own, _ in KINDS.values() for head in own]
    assert len(set(heads)) == len(heads) == 80
    for about in ("place", "act", "part"):
        assert len(set(tails(about))) == 16
    for relation in RELATIONS:
        right = right_tails("robin", relation)
        assert len(right) == (14 if RELATIONS[relation].polarity == "negative" else 2)
    assert not set(right_tails("robin", "Can")) & set(right_tails("robin", "CanNot"))


def test_requests_ask_sentences_and_students_write_tails():
    found = commonsense.commonsense(samples=3)
    assert len(found) == 480
    parts = {split: [r for r in found if r.split == split] for split in ("train", "test")}
    assert 90 < len(parts["test"]) < 150
    assert {each.source for each in parts["train"]}.isdisjoint(r.source for r in parts["test"])
    for each in found:
        head, relation = each.meta["head"], each.meta["relation"]
        assert each.prompt[0].content == f"{head} {relation} [GEN]"
        begun = RELATIONS[relation].sentence.format(head=head)
        assert each.messages[-1].content.splitlines()[-1] == begun
        assert json.loads(each.reference) == right_tails(head, relation)
        assert each.task == RELATIONS[relation].polarity
        assert each.sampling.n == 3


def test_the_closed_form():
    for error in (0.0, 0.1, 0.3, 0.5):
        assert stays(3, error) == pytest.approx(3 * error**2 * (1 - error) + error**3)
        assert stays(1, error) == error
    assert accepted_share(0.7, 1, 0.0) == 1.0
    assert accepted_share(0.7, 5, 0.5) == pytest.approx(0.7)


@pytest.mark.parametrize("votes", [1, 3])
def test_acceptance_rises_as_the_closed_form_says(tmp_path, votes):
    found = written(tmp_path / "set", votes=votes, error=0.2)
    known = commonsense.acceptance(found, asked(), votes=votes, error=0.2)
    assert known["before"] == pytest.approx(0.7, abs=0.04)
    assert known["expected"] == pytest.approx(accepted_share(known["before"], votes, 0.2))
    assert known["off"] == abs(known["accepted"] - known["expected"])
    assert known["off"] < 0.04
    # Of the right ones as many are lost.
    assert known["recall"] == pytest.approx(1 - stays(votes, 0.2), abs=0.04)
    # Positive triples are not asked about.
    assert known["positive"] == pytest.approx(0.9, abs=0.04)
    assert all(each.scores["valid"] == 1.0 for each in found.records() if each.task == "positive")
    assert set(known) == set(commonsense.acceptance.metrics)
    (step,) = found.manifest["after"]
    assert step["settings"]["critic"]["critic"] == "critic"
    assert found.manifest["made_from"]["teachers"].keys() == {"writer"}


def test_votes_of_one_mind_are_worth_one(tmp_path):
    found = written(tmp_path / "set", votes=3, error=0.2, alike=1.0)
    known = commonsense.acceptance(found, asked(), votes=3, error=0.2)
    assert known["accepted"] == pytest.approx(accepted_share(known["before"], 1, 0.2), abs=0.03)
    assert known["off"] > 0.03
    assert {each.scores["valid"] for each in found.records()} == {1.0}


def test_without_a_critic_all_stay(tmp_path):
    found = written(tmp_path / "set")
    known = commonsense.acceptance(found, asked())
    assert known["accepted"] == known["before"] == known["expected"]
    assert known["recall"] == 1.0
    assert known["off"] == 0.0


def test_another_seed_has_other_votes(tmp_path):
    one, other = (
        [each.id for each in written(tmp_path / str(seed), votes=1, seed=seed).records()]
        for seed in (0, 1)
    )
    assert one != other
    assert one == [each.id for each in written(tmp_path / "again", votes=1, seed=0).records()]


def test_what_says_neither_yes_nor_no_does_not_vote():
    def script(question):
        return "Perhaps." if "trout" in question.messages[-1].content else "Yes, it is."

    unsure = Critic(records.scripted(script, name="unsure", revision="1"))
    items = []
    for request in asked().values():
        if request.task == "negative" and request.meta["head"] in ("trout", "robin"):
            answer = records.Response(request.questions()[0].id, 0, "rust", teacher="writer")
            items.append(records.record_of(request, answer))
    made = {d.record.meta["head"]: d for d in commonsense.confirmed(items, 0, critic=unsure)}
    assert (made["trout"].keep, made["trout"].reason) == (False, "neither yes nor no")
    assert (made["robin"].keep, made["robin"].score) == (True, 1.0)


def test_students_are_scored_by_all_right_tails():
    answers = [
        Answered("", "sing", '["fly", "sing"]', "positive"),
        Answered("", " swim ", '["fly", "sing"]', "positive"),
        Answered("", "swim", '["swim"]', "negative"),
    ]
    found = commonsense.right_share(answers)
    assert found == {"right": 2 / 3, "negative": 1.0, "positive": 0.5}
    assert set(found) == set(commonsense.right_share.metrics)


def test_things_of_a_file(tmp_path):
    path = tmp_path / "heads.jsonl"
    path.write_text('{"head": "teapot"}\n{"head": " old  clock"}\n{"head": "teapot"}\n')
    found = commonsense.commonsense(path=str(path))
    assert [each.meta["head"] for each in found[::6]] == ["teapot", "old clock"]
    assert {each.split for each in found} == {"train"}
    assert found[0].reference is None
    path.write_text('{"head": 3}')
    with pytest.raises(ValueError, match=r"line 1 of .* needs a text 'head'"):
        commonsense.commonsense(path=str(path))


def test_bad_settings_are_refused():
    with pytest.raises(ValueError, match="votes=2 can be equal: take an odd number"):
        records.step(commonsense.confirmed, critic=critic(), votes=2)
    with pytest.raises(ValueError, match="no thing of the small world: 'teapot'"):
        truth("teapot")
    with pytest.raises(ValueError, match="no sentence of the small world"):
        commonsense.tell_tails(records.Request.of("Hello.").questions()[0])


@pytest.mark.parametrize(
    ("critic", "message"),
    [
        ({"teacher": "scripted", "script": {"script": "confirm_tail"}}, "did you mean 'confirm_"),
        ({"teacher": "scripted", "script": {"script": "confirm_tails", "error": 2}}, "error"),
        ({"teacher": "nobody"}, "unknown teacher of records 'nobody'"),
        ({"teacher": "decoder", "length": 8}, "decoder"),
    ],
)
def test_a_critic_that_cannot_be_is_refused_before_anything_is_asked(critic, message):
    with pytest.raises(ValueError, match=message):
        steps([{"step": "confirmed", "critic": critic}], Context())


def test_a_critic_of_a_config_is_known_by_its_name():
    said = {"teacher": "scripted", "script": {"script": "confirm_tails"}}
    (found,) = steps(
        [{"step": "confirmed", "critic": said, "called": "second", "votes": 5}], Context()
    )
    assert found.described()["settings"]["critic"]["critic"] == "second"
    assert found.described()["settings"]["votes"] == 5
