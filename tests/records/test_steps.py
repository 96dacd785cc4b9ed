"""What every step must hold, and what each single one decides."""

import collections
import dataclasses
import random

import numpy as np
import pytest
from records.made import golden, kept, reasons, record

from jaxdistill import records
from jaxdistill.records import Answers, Message, Response, Sampling, Teacher, reading
from jaxdistill.records.balance import balanced, capped, negatives, repeated
from jaxdistill.records.cleaning import (
    finished,
    in_scripts,
    length,
    normalised,
    script_of,
    tagged,
    unrepetitive,
)
from jaxdistill.records.judging import Asked, canonical_answer, judged, preferred, voted, within
from jaxdistill.registry import STEPS
from jaxdistill.registry import steps as steps_of
from jaxdistill.registry.context import Context

# Settings without defaults, and what some steps need to decide anything.
SETTINGS = {
    "capped": {"most": 7},
    "confirmed": {
        "critic": {"teacher": "scripted", "script": {"script": "confirm_tails"}},
    },
    "decontaminated": {"against": ["the word 3 stands here " * 4]},
    "judged": {
        "judge": {
            "judge": "asked",
            "called": "critic",
            "teacher": {"teacher": "scripted", "script": {"script": "translator", "wrong": 0.0}},
            "question": "{answer}",
        },
        "least": 5.5,
    },
    "length": {"least": 2, "most": 9},
    "repeated": {"times": {"a": 3}},
    "unlike": {"against": ["question 3"]},
    "verified_code": {"allow": True},
    "verified_mathematics": {"workers": 1},
    "within": {"by": "score", "least": 4},
}
SAID = {"speaker": "user", "entities": [], "dialogue": "d", "state": {}, "after": {}, "acts": []}
SAID |= {"act": "( a ) ask", "known": {}}
NEEDS = {"near_duplicates": "datasketch", "verified_mathematics": "math_verify"}


def many():
    """Records of which every step keeps some and drops some."""
    drawn = random.Random(0)
    found = []
    for i in range(40):
        answer = drawn.choice(["5", "5.0", "6", '["a"]', "<think>x</think><answer>5</answer>"])
        fields = {
            "request": f"r{i % 8}",
            "reference": "5",
            "tests": ("assert True",) if i < 2 else (),
            "task": "ab"[i % 2],
            "scores": {"score": float(i % 11)},
            "meta": {"type": f"type {i % 5}", "passage": f"text {i % 9}", **SAID, "number": i},
            "source": f"items/{i}",
        }
        prompt = drawn.choice([f"question {i % 7}", f"the word {i} stands here " * 4])
        found.append(record(answer, prompt, **fields))
    return found


@pytest.mark.parametrize("name", STEPS)
def test_every_step_is_a_pure_function_of_records_and_seed(name, monkeypatch):
    if name in NEEDS:
        pytest.importorskip(NEEDS[name])
    (step,) = (
        each._replace(facts=each.facts._replace(needs=()))
        for each in [STEPS[name](Context(), **SETTINGS.get(name, {}))]
    )
    items = many()
    records.refuse_unsteady(step, items, seed=3)
    before = list(items)
    outcomes = []
    for run in range(2):
        random.Random(run).shuffle(items)
        outcomes.append(records.run(items, [step], seed=3))
    assert outcomes[0] == outcomes[1]
    assert sorted(before, key=lambda r: r.id) == sorted(items, key=lambda r: r.id)
    (counts,) = outcomes[0].counts
    dropped = sum(counts["dropped"].values())
    assert counts["came"] + counts["made"] == counts["kept"] + dropped
    assert all(each for each in counts["dropped"]), "a reason is empty"
    for _, verdict in outcomes[0].dropped:
        assert verdict.reason
    assert records.run([], [step]).kept == []


@pytest.mark.parametrize("name", [n for n in STEPS if n not in ("verified_code", *NEEDS)])
def test_steps_that_say_so_decide_about_requests(name):
    step = STEPS[name](Context(), **SETTINGS.get(name, {}))
    if not step.facts.requests:
        return
    if "of" in step.settings:
        function = {**SETTINGS.get(name, {}), "of": "prompt"}
        step = STEPS[name](Context(), **function)
    asked = [records.Request.of(f"question {i % 7} {i}", source=f"{i}") for i in range(20)]
    outcome = records.run(asked, [step])
    assert len(outcome.kept) + len(outcome.dropped) == 20


def test_a_config_names_steps_in_order():
    made = steps_of([{"step": "read_score", "name": "q"}, {"step": "within", "by": "q"}], Context())
    assert [each.name for each in made] == ["read_score", "within"]
    for parts, said in (
        ([{"step": "votd"}], "did you mean 'voted'"),
        ([{"step": "length", "leats": 3}], "did you mean 'least'"),
        ([{"step": "within", "by": "q"}], "needs score q, which nothing before it gives"),
        ([{"step": "repeated", "times": {}}, {"step": "exact_duplicates"}], "would undo"),
        ([{"step": "unlike", "against": [], "embedder": {"name": "hashd"}}], "'hashed'"),
    ):
        with pytest.raises(ValueError, match=said):
            steps_of(parts, Context())


def test_texts_of_a_test_set_come_from_a_file(tmp_path):
    file = tmp_path / "test.jsonl"
    file.write_text('{"question": "what is two and three"}\n')
    part = {"step": "decontaminated", "against": {"path": str(file), "text": "question"}}
    (step,) = steps_of([part], Context())
    items = [record(prompt="What is two and three?"), record(prompt="else")]
    outcome = records.run([records.Request.of(r.prompt[0].content) for r in items], [step])
    assert len(outcome.dropped) == 1


# --- cleaning ----------------------------------------------------------------------------------


def test_normal_form_keeps_indentation_and_raw():
    text = "a\u0301  b\u00a0c \r\n\r\n\r\n    def f():\t\tpass  \n\n"
    before = record(text, "  q  ")
    (after,) = kept(normalised, [before]).kept
    assert after.answer == "\u00e1 b c\n\n    def f(): pass"
    assert after.messages[1].content == after.answer
    assert after.messages[1].learn
    assert after.messages[0].content == "q"
    assert (after.raw, after.id) == (before.raw, before.id)


def test_cut_and_empty_answers():
    items = [record("a"), record("b", finish="length"), record(" \n")]
    assert reasons(kept(finished, items)) == {"cut": 1, "empty": 1}


def test_lengths():
    items = [record("a b"), record("a b c d"), record("知识蒸馏很好")]
    assert reasons(kept(length, items, least=3, most=5)) == {"too long": 1, "too short": 1}
    counted = kept(length, items, unit="tokens", tokens=lambda text: 2 * len(text), most=7)
    assert reasons(counted) == {"too long": 2}


@pytest.mark.parametrize(
    ("text", "fine"),
    [
        ("<think>a</think><answer>b</answer>", True),
        (" <think>\na < b\n</think>\n\n<answer>b</answer>\n", True),
        ("<think>a</think> so <answer>b</answer>", False),
        ("<answer>b</answer><think>a</think>", False),
        ("<think>a<think>b</think></think><answer>b</answer>", False),
        ("<think>a</think><answer>b</answer><answer>c</answer>", False),
        ("<think>a</think><answer> </answer>", False),
        ("<think></think><answer>a</answer>", False),
        ("<think>a</think>", False),
        ("<think>a</think><answer>b", False),
    ],
)
def test_tags(text, fine):
    assert bool(kept(tagged, [record(text)]).kept) == fine


def test_answers_that_change_their_script():
    items = [record("all is well"), record("all ist 很好很好"), record("42 + 1"), record("知识")]
    outcome = kept(in_scripts, items, scripts=("latin",))
    assert sorted(r.answer for r, _ in outcome.dropped) == ["all ist 很好很好", "知识"]
    assert len(kept(in_scripts, items, scripts=("latin", "han")).kept) == 4
    assert [script_of(each) for each in "aжאかカ한ก"] == [
        "latin", "cyrillic", "hebrew", "kana", "kana", "hangul", "thai",
    ]  # fmt: skip
    with pytest.raises(ValueError, match="did you mean 'latin'"):
        records.step(in_scripts, scripts=("latn",))


def test_repetition():
    fine = " ".join(str(i) for i in range(400))
    loop = " ".join(f"w{i % 20}" for i in range(20 * 22))
    outcome = kept(unrepetitive, [record(fine), record(loop)])
    assert [v.score for _, v in outcome.dropped] == [22.0]
    assert len(kept(unrepetitive, [record(loop)], most=22).kept) == 1


# --- reading -----------------------------------------------------------------------------------


def test_entities_are_read_as_in_universal_ner():
    case = golden("entities_universal_ner")
    for text, expected in case["normalize"]:
        assert reading.normal_entity(text) == expected, text
    for text, expected in case["parse"]:
        assert reading.published_strings(text) == expected, text


def test_scores_are_read_as_in_t2i_eval():
    for text, expected in golden("scores_t2i_eval")["extract"]:
        found = reading.first_score(text)
        # What is not finite is no score here.
        assert found == (None if expected in ("N/A", "nan", "inf") else expected), text


def test_parts_of_answers():
    marked = [record("2 and 3\n#### 5\nmore"), record("it is 1,005."), record("none")]
    strict = kept(reading.read_marker, marked)
    assert [(r.rationale, r.answer) for r in strict.kept] == [("2 and 3", "5")]
    assert reasons(strict) == {"no marker": 2}
    lenient = kept(reading.read_marker, marked, otherwise="number")
    assert sorted(r.answer for r in lenient.kept) == ["1005", "5"]
    tags = kept(reading.read_tags, [record("<think>a</think><answer>b</answer>"), record("b")])
    assert [(r.rationale, r.answer) for r in tags.kept] == [("a", "b")]
    lists = [record('x ["a", "b]"] y'), record("[1]"), record('[["a"]]'), record("[")]
    found = kept(reading.read_strings, lists)
    assert [r.answer for r in found.kept] == ['["a", "b]"]']
    scores = kept(reading.read_score, [record("it is 7"), record("77"), record("good")], name="q")
    assert [r.scores for r in scores.kept] == [{"q": 7.0}]
    assert reasons(scores) == {"no score": 1, "out of bounds": 1}
    several = [record("3 and 7"), record("3 and then N/A"), record("3 of 4, so None")]
    last = kept(reading.read_score, several, which="last")
    assert [r.scores for r in last.kept] == [{"score": 7.0}]
    assert reasons(last) == {"no score": 2}


# --- judging -----------------------------------------------------------------------------------


def test_a_judge_scores_and_drops():
    items = [record("good"), record("bad"), record("odd")]
    values = {"good": 0.9, "bad": 0.1, "odd": None}
    outcome = kept(
        judged, items, judge=lambda rs: [values[r.answer] for r in rs], name="reward", least=0.5
    )
    assert [r.scores for r in outcome.kept] == [{"reward": 0.9}]
    assert reasons(outcome) == {"no number from the judge": 1, "score too low": 1}
    most = kept(judged, items[:1], judge=lambda rs: [3.0], most=2.0)
    assert reasons(most) == {"score too high": 1}


@pytest.mark.parametrize(
    ("judge", "said"),
    [
        (lambda rs: ["good" for _ in rs], "answered 'good' for record"),
        (lambda rs: [float("nan") for _ in rs], "answered nan"),
        (lambda rs: [True for _ in rs], "answered True"),
        (lambda rs: [1.0], "1 numbers for 2 records"),
    ],
)
def test_a_judge_that_answers_no_number(judge, said):
    with pytest.raises(ValueError, match=said):
        kept(judged, [record("a"), record("b")], judge=judge)


def test_judges_are_told_apart():
    def strict(rs): ...

    strict.name, strict.revision = "strict", "7"
    assert records.step(judged, judge=strict).settings["judge"] == "strict 7"


def test_asking_again_raises_acceptance_as_the_closed_form_says():
    """With n votes of a critic that errs independently with e, a wrong record stays if most err."""
    wrong_share, e, n = 0.4, 0.2, 3
    drawn = random.Random(0)
    items = [record(str(i), f"claim {i}", reference="nr"[i % 5 < 2]) for i in range(600)]
    truth = {f"claim {i}": i % 5 >= 2 for i in range(600)}
    assert np.mean([not t for t in truth.values()]) == wrong_share
    asked = []

    def answer(questions):
        for q in questions:
            asked.append(q)
            says = truth[q.messages[0].content] != (random.Random(q.seed).random() < e)
            yield Response(q.id, q.sample, "yes" if says else "no")

    judge = Asked(
        Teacher("critic", "1", answer),
        lambda r: records.Request(r.prompt, source=r.id, sampling=Sampling(n=n)),
        lambda text: float(text == "yes"),
        Answers(),
    )
    outcome = kept(judged, items, judge=judge, name="holds", least=0.5)
    right = np.array([truth[r.prompt[0].content] for r in outcome.kept])
    err = e**3 + 3 * e**2 * (1 - e)
    good, bad = (1 - wrong_share) * (1 - err), wrong_share * err
    assert right.mean() == pytest.approx(good / (good + bad), abs=0.03)
    assert len(right) / 600 == pytest.approx(good + bad, abs=0.05)
    assert {s for r in outcome.kept for s in r.scores.values()} == {2 / 3, 1.0}
    count = len(asked)
    kept(judged, items, judge=judge, name="holds", least=0.5)
    assert len(asked) == count == 1800
    assert drawn


def test_a_config_names_a_judge(tmp_path):
    part = SETTINGS["judged"]["judge"]
    part = {**part, "read": "yes", "answers": str(tmp_path), "sampling": {"n": 3, "seed": 1}}
    asks = {**part, "question": "yes {answer}", "teacher": {**part["teacher"]}}
    asks["teacher"]["script"] = {"script": "translator", "wrong": 1.0}
    for change, said in (
        ({"question": "Is it right?"}, "says of no text of the record"),
        ({"question": "Is {anser} right?"}, "did you mean 'answer'"),
        ({"read": "maybe"}, "'last_score'"),
        ({"teacher": {"teacher": "scriptd"}}, "did you mean 'scripted'"),
        ({"teacher": {"teacher": "decoder", "length": 9}}, "earlier stage"),
        ({"judge": "askd"}, "did you mean 'asked'"),
    ):
        with pytest.raises(ValueError, match=said):
            steps_of([{"step": "judged", "judge": {**part, **change}}], Context())
    one, other = (
        steps_of([{"step": "judged", "judge": {**part, "question": q}}], Context())[0].settings
        for q in ("{answer}", "{raw}")
    )
    assert one["judge"] != other["judge"]
    (step,) = steps_of([{"step": "judged", "judge": asks}], Context())
    with pytest.raises(ValueError, match="judge 'critic' says no number about any of 2 records"):
        records.run([record("5"), record("6")], [step])
    (step,) = steps_of([{"step": "judged", "judge": {**part, "read": "last_score"}}], Context())
    outcome = records.run([record("5"), record("good")], [step])
    assert [r.scores for r in outcome.kept] == [{"score": 5.0}]
    assert reasons(outcome) == {"no number from the judge": 1}
    assert list(tmp_path.glob("critic/*.jsonl"))


def test_votes():
    def answers(request, *said):
        return [record(a, request=request, source=f"{i}") for i, a in enumerate(said)]

    items = [
        *answers("clear", "5", "5.0", "6"),
        *answers("tie", "1", "2"),
        *answers("text", "Yes.", " yes", "no"),
    ]
    outcome = kept(voted, items)
    assert sorted(canonical_answer(r.answer) for r in outcome.kept) == ["5", "yes"]
    assert reasons(outcome) == {"agrees with another": 2, "outvoted": 2, "tie": 2}
    assert {r.scores["votes"] for r in outcome.kept} == {2 / 3}
    assert len(kept(voted, items, keep="all").kept) == 4
    assert reasons(kept(voted, items, least=0.7)) == {"outvoted": 2, "tie": 2, "too few votes": 4}


def test_pairs_of_better_and_worse():
    items = [
        record(a, request=r, scores={"score": s})
        for a, r, s in (
            ("x", "1", 0.9),
            ("y", "1", 0.1),
            ("z", "1", 0.5),
            ("u", "2", 1),
            ("v", "2", 1),
        )
    ]
    outcome = kept(preferred, items)
    (pair,) = outcome.kept
    assert (pair.answer, pair.meta["rejected"]) == ("x", "y")
    assert [each["answer"] for each in pair.meta["ranked"]] == ["x", "z", "y"]
    assert len(pair.provenance.parents) == 3
    assert reasons(outcome) == {"in a pair": 3, "no worse answer": 2}


def test_within_bounds():
    items = [record(str(s), scores={"q": s}) for s in (1.0, 2.0, 3.0)] + [record("none")]
    outcome = kept(within, items, by="q", least=1.5, most=2.5)
    assert [r.answer for r in outcome.kept] == ["2.0"]
    assert reasons(outcome) == {"no score q": 1, "score too high": 1, "score too low": 1}


# --- balance -----------------------------------------------------------------------------------


def test_bins_are_brought_to_the_percentile_of_t2i_eval():
    case = golden("bins_t2i_eval")
    items = [
        record(f"{value} {i}", scores={"score": float(value)})
        for value, size in case["bin_sizes"].items()
        for i in range(size)
    ] + [record(f"none {i}") for i in range(case["n_a"])]
    outcome = kept(balanced, items, by="score", percentile=75)
    sizes = collections.Counter(str(int(r.scores["score"])) for r in outcome.kept)
    assert {**sizes, "N/A": 0} == case["resampled"]
    assert reasons(outcome)["no score score"] == 5
    ids = [r.id for r in outcome.kept]
    assert len(ids) == len(set(ids))
    copies = [r for r in outcome.kept if r.provenance.parents]
    assert len(copies) == sum(max(0, 47 - size) for size in case["bin_sizes"].values())
    assert outcome.counts[0]["made"] == len(copies)


def test_only_the_training_set_is_balanced():
    items = [
        record(str(i), scores={"score": 1.0}, split=["train", "validation"][i % 2])
        for i in range(20)
    ]
    outcome = kept(balanced, items, percentile=50, empty=True)
    assert [r.split for r in outcome.kept] == ["validation"] * 10


def queries(seed=0):
    drawn = random.Random(seed)
    kinds = ["person"] * 8 + ["place"] * 4 + ["rare"]
    found = []
    for i in range(200):
        for kind in sorted(set(drawn.choices(kinds, k=2))):
            said = (Message("user", f"Text: {i}"), Message("user", f"What describes {kind}?"))
            base = record('["x"]', source=f"{i} {kind}", meta={"type": kind, "passage": str(i)})
            found.append(dataclasses.replace(base, messages=(*said, *base.messages[1:])))
    return found


@pytest.mark.parametrize("by", ["frequency", "uniform"])
def test_negatives_are_absent_types_drawn_as_asked(by):
    items = queries()
    items[0] = dataclasses.replace(items[0], meta={**items[0].meta, "type": "PERSON"})
    outcome = kept(negatives, items, ratio=0.5, by=by, question="What describes {kind} here?")
    present = collections.defaultdict(set)
    for each in items:
        present[each.meta["passage"]].add(each.meta["type"].casefold())
    made = [r for r in outcome.kept if r.provenance.parents]
    for each in made:
        assert each.meta["type"].casefold() not in present[each.meta["passage"]]
        assert [m.content for m in each.messages] == [
            f"Text: {each.meta['passage']}",
            f"What describes {each.meta['type']} here?",
            "[]",
        ]
        assert [m.learn for m in each.messages] == [False, False, True]
        assert each.answer == each.reference == "[]"
    wanted = sum(len(kinds) for kinds in present.values()) / 2
    assert len(made) == pytest.approx(wanted, rel=0.15)
    drawn = collections.Counter(r.meta["type"] for r in made)
    # Passages that lack several types draw them in proportion to how often they occur.
    lacking = [p for p, kinds in present.items() if kinds == {"person"}]
    of_these = collections.Counter(r.meta["type"] for r in made if r.meta["passage"] in lacking)
    if by == "frequency":
        assert of_these["place"] > 2 * of_these["rare"] > 0
    else:
        assert 0.4 < of_these["place"] / (of_these["place"] + of_these["rare"]) < 0.65
    assert drawn.total() == len(made)


def test_negatives_need_their_keys():
    with pytest.raises(ValueError, match=r"has no text in meta\['type'\]"):
        kept(negatives, [record("a")])
    with pytest.raises(ValueError, match="where the kind goes"):
        records.step(negatives, question="What?")


def test_tasks_are_repeated_and_capped():
    items = [record(str(i), task="ab"[i % 2]) for i in range(10)]
    assert len(kept(repeated, items, times={"a": 8}).kept) == 5 * 8 + 5
    outcome = kept(capped, items, most=2)
    assert collections.Counter(r.task for r in outcome.kept) == {"a": 2, "b": 2}
    other = kept(capped, items, most=2, seed=1)
    assert [r.id for r in other.kept] != [r.id for r in outcome.kept]
