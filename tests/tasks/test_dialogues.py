"""Dialogues: states as text, translations that err and are mended, what students are asked."""

import collections
import json
import random

import pytest
from records.made import kept, record

from jaxdistill import records
from jaxdistill.records import scripted
from jaxdistill.records.similarity import DictionaryEmbedder, similar
from jaxdistill.tasks import dialogue_world as world
from jaxdistill.tasks import dialogues, localising

NO_ERRORS = {"changed": 0.0, "lost": 0.0, "wrong": 0.0}
LEXICON = {world.foreign_word(word): word for word in world.every_word()}


def wrote(folder, requests, *after, **errors):
    teacher = scripted(
        lambda question: world.translator(question, **errors), name="writer", revision="1"
    )
    asked = [each for each in requests if each.split == "train"]
    steps = [records.step(f, **s) for f, s in after]
    return records.write(asked, teacher, folder / "written", after=steps)


def measured(written, requests):
    return localising.translations(written, {each.id: each for each in requests})


def alike(threshold=0.8):
    return similar, {"embedder": DictionaryEmbedder(LEXICON), "threshold": threshold}


# --- states ------------------------------------------------------------------------------------


def test_states_are_read_as_they_are_written():
    draw = random.Random(0)
    for _ in range(100):
        for turn in world.drawn(draw):
            assert dialogues.read_state(dialogues.state_text(turn.state)) == turn.state
    spaced = {"a kind": {"slot": 'two words, and: (more) ; "x"', "other": "né so"}}
    assert dialogues.read_state(dialogues.state_text(spaced)) == spaced
    swapped = "b : z 1 , a 2 ; a : c 3"
    assert dialogues.read_state(swapped) == {"b": {"z": "1", "a": "2"}, "a": {"c": "3"}}


@pytest.mark.parametrize(
    "text",
    ["", "nothing", "hotel :", "hotel : area", "area north", "hotel : area north ;",
     "hotel : area north , none", 'hotel : area "north', "hotel : area north ; and more"],
)  # fmt: skip
def test_what_is_no_state_is_not_read(text):
    assert dialogues.read_state(text) is None


def test_changes_lead_from_state_to_state():
    for number in range(50):
        state = {}
        for turn in world.drawn(random.Random(number)):
            state = dialogues.applied(state, dialogues.changed(state, turn.state))
            assert state == turn.state


# --- the world ---------------------------------------------------------------------------------


def test_languages_have_words_of_their_own_for_everything():
    assert len(LEXICON) == len(world.every_word())
    assert not LEXICON.keys() & set(world.every_word())
    text = "i want it {north} no , better {south}"
    there = world.said(text, True, marked=True)
    assert [LEXICON.get(w.strip('"'), w) for w in reversed(there.split())] == world.said(
        text, False
    ).split()
    assert there.count('"') == 4


def test_a_place_is_found_by_all_that_is_wanted():
    wanted = {"kind": "inn", "area": "north", "price": "cheap"}
    there = {slot: world.foreign_word(value) for slot, value in wanted.items()}
    found = world.place("hotel", wanted)
    assert world.foreign_place("hotel", there) == {
        slot: world.foreign_word(value) for slot, value in found.items()
    }
    assert world.foreign_place("hotel", {**there, "price": "cheap"}) is None
    assert world.place("hotel", {"area": "north"}) is None is world.place("bar", wanted)


def test_a_translator_errs_as_often_as_it_is_told_to(tmp_path):
    requests = localising.localised_dialogues(count=150, held_out=1)
    none = wrote(tmp_path / "none", requests, (localising.localised, {}), **NO_ERRORS)
    spoken = [r for r in requests if r.meta.get("speaker") in ("user", "agent")]
    answers = {r.provenance.request: r.meta["said"].replace('"', "") for r in none.records()}
    assert answers == {r.id: r.reference for r in spoken}
    wrong = wrote(
        tmp_path / "w", requests, (localising.localised, {}), **{**NO_ERRORS, "wrong": 0.2}
    )
    bad = [
        r
        for r in wrong.records()
        if r.meta["said"].replace('"', "") != answers[r.provenance.request]
    ]
    assert 0.15 < len({r.provenance.request for r in bad}) / len(spoken) < 0.25


# --- alignment and the filter --------------------------------------------------------------------


def test_alignment_puts_changed_entities_back(tmp_path):
    requests = localising.localised_dialogues(count=100, held_out=1)
    errors = {**NO_ERRORS, "changed": 0.4}
    plain = wrote(tmp_path / "plain", requests, (localising.localised, {}), **errors)
    both = (localising.aligned, {}), (localising.localised, {})
    mended = wrote(tmp_path / "aligned", requests, *both, **errors)
    assert measured(plain, requests)["precision"] < 0.75
    assert measured(mended, requests)["precision"] == 1.0
    assert measured(mended, requests)["right"] > 0.9
    dropped = collections.Counter(each.verdict.reason for each in mended.dropped())
    assert dropped["entities cannot be told apart"] > 0


def test_an_entity_that_is_lost_is_no_longer_there(tmp_path):
    requests = localising.localised_dialogues(count=50, held_out=1)
    both = (localising.aligned, {}), (localising.localised, {})
    written = wrote(tmp_path, requests, *both, **{**NO_ERRORS, "lost": 0.3})
    assert measured(written, requests)["precision"] == 1.0
    reasons = collections.Counter(each.verdict.reason for each in written.dropped())
    assert reasons["entities are not all there"] > 50


def test_a_filter_by_meaning_finds_wrong_sentences(tmp_path):
    requests = localising.localised_dialogues(count=100, held_out=1)
    errors = {"changed": 0.3, "lost": 0.0, "wrong": 0.3}
    steps = (localising.aligned, {}), (localising.localised, {})
    loose = wrote(tmp_path / "loose", requests, *steps, **errors)
    strict = wrote(tmp_path / "strict", requests, steps[0], alike(), steps[1], **errors)
    assert measured(loose, requests)["precision"] < 0.97
    assert measured(strict, requests)["precision"] > 0.99


def test_entities_are_told_apart_by_what_is_known():
    known = {"kalt": {"cold"}, "frisch": {"cold", "new"}}
    assert localising.told_apart(["Frisch", "new"], ["cold", "new"], known) == ["cold", "new"]
    assert localising.told_apart(["kalt", "?"], ["new", "cold"], known) == ["cold", "new"]
    assert localising.told_apart(["frisch", "?"], ["new", "cold"], known) is None
    assert localising.told_apart([], [], known) == []
    # Two of the same are each of them.
    assert localising.told_apart(["x", "x"], ["cold", "cold"], known) is None
    assert localising.told_apart(["cold", "x"], ["cold", "cold"], known) == ["cold", "cold"]


# --- what students learn, and serve ---------------------------------------------------------------


@pytest.mark.parametrize("history", ["compact", "full"])
def test_what_is_learnt_is_what_is_asked_when_serving(tmp_path, history):
    """A student that knows its records by heart serves the dialogues they were made of."""
    requests = localising.localised_dialogues(count=40, held_out=1, marked=False)
    written = wrote(tmp_path, requests, (localising.localised, {"history": history}), **NO_ERRORS)
    learnt = collections.defaultdict(dict)
    for each in written.records():
        asked, answer = each.messages
        assert answer.learn
        learnt[each.meta["dialogue"]][asked.content] = answer.content
    values = {each: world.foreign_word(each) for each in world.every_entity()}
    served = []
    for name, known in learnt.items():
        turns = [each._asdict() for each in world.drawn(random.Random(name))]
        turns = localising._in_values(turns, values, "")
        for turn in turns:
            turn |= {who: world.said(turn[who], True) for who in ("user", "agent")}
        request = records.Request.of("x", meta={"turns": turns})
        served.append(played(dialogues.served(request, history=history), known.get))
    assert dialogues.service(served) == dict.fromkeys(dialogues.SERVICE, 1.0)


def played(going, answer):
    asked = next(going)
    while True:
        try:
            asked = going.send(answer(asked))
        except StopIteration as stop:
            return stop.value


def test_a_student_is_held_to_what_it_understood():
    asked = localising.localised_dialogues(count=1, held_out=1)
    request = next(each for each in asked if each.split == "test")
    silent = played(dialogues.served(request), lambda asked: "")
    assert not any(silent.states)
    assert not any(silent.tasks)
    assert not any(silent.read)
    # Nothing is found by a state that was not understood.
    asked = []
    played(dialogues.served(request), lambda prompt: asked.append(prompt) or "none")
    assert all("name" not in each for each in asked if each.startswith("act"))


def test_a_missing_sentence_ends_a_full_history_only(tmp_path):
    requests = [r for r in localising.localised_dialogues(count=1, held_out=1, marked=False)
                if r.split == "train" and r.meta["number"] != 1]  # fmt: skip
    short = wrote(tmp_path / "c", requests, (localising.localised, {}), **NO_ERRORS)
    full = wrote(tmp_path / "f", requests, (localising.localised, {"history": "full"}), **NO_ERRORS)
    assert (
        len(list(full.dropped())) == len([r for r in requests if r.meta["speaker"] == "user"]) - 1
    )
    assert not list(short.dropped())


# --- files, bad input ----------------------------------------------------------------------------


TURN = {"user": "in the {north}", "agent": "try {inn}", "state": {"hotel": {"area": "north"}},
        "act": ["hotel", "offer", {"name": "inn"}], "known": {"name": "inn"}}  # fmt: skip


def file_of(tmp_path, *rows):
    file = tmp_path / "dialogues.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(file)


def test_dialogues_of_a_file(tmp_path):
    there = {**TURN, "user": "im norden", "agent": "krug", "state": {"hotel": {"area": "norden"}}}
    train = {"turns": [TURN], "values": {"north": "norden", "inn": "krug"}}
    path = file_of(tmp_path, train, {"turns": [there], "split": "test"})
    found = localising.dialogues_of_file(path=path, language="German")
    user, agent, test, *entities = found
    assert user.messages[-1].content == 'in the "north"'
    assert "German" in user.messages[0].content
    assert user.meta["after"] == {"hotel": {"area": "norden"}}
    assert user.reference is None
    assert agent.meta["act"] == "hotel offer name krug"
    assert test.reference == "hotel : area norden ; hotel offer name inn"
    assert test.split == "test"
    assert [(e.messages[-1].content, e.meta["entities"]) for e in entities] == [
        ("inn", ["krug"]), ("north", ["norden"])
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"turns": []}, "needs 'turns'"),
        ({"turns": [{"user": "a"}]}, "a turn lacks 'agent'"),
        ({"turns": [TURN], "values": {"north": "n", "in": "i"}}, "unknown entity .*'inn'.*'in'"),
    ],
)
def test_a_dialogue_that_is_not_right_names_its_line(tmp_path, row, message):
    path = file_of(tmp_path, {"turns": [TURN], "values": {"north": "n", "inn": "i"}}, row)
    with pytest.raises(ValueError, match=f"line 2 of .*{message}"):
        localising.dialogues_of_file(path=path, language="German")


def test_places_of_a_file(tmp_path):
    row = {"kind": "hotel", "area": "norden", "known": {"name": "krug"}}
    find = dialogues.places_of(file_of(tmp_path, row))
    assert find("hotel", {"area": "norden"}) == {"name": "krug"}
    assert find("hotel", {"area": "süden"}) is None
    with pytest.raises(ValueError, match=r"line 1 of .*a place needs 'kind' and 'known'"):
        dialogues.places_of(file_of(tmp_path, {"kind": "hotel"}))


@pytest.mark.parametrize("step", [localising.aligned, localising.localised])
def test_records_of_something_else_are_refused(step):
    with pytest.raises(ValueError, match="no 'speaker': it answers no request of"):
        kept(step, [record("5")])


def test_a_file_must_be_named():
    with pytest.raises(ValueError, match="there are no dialogues"):
        localising.dialogues_of_file(path="", language="German")
