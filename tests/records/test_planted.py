"""A set with planted defects goes through the whole pipeline: what is wrong goes, what is right
stays."""

import random

import pytest

from jaxdistill import records
from jaxdistill.records import Request, Response, Sampling, Teacher
from jaxdistill.records.contamination import decontaminated
from jaxdistill.records.duplicates import exact_duplicates, near_duplicates
from jaxdistill.records.mathematics import verified_mathematics
from jaxdistill.records.reading import read_marker
from jaxdistill.records.texts import jaccard, pieces

NAMES = ["Ada", "Boris", "Chloe", "Dmitri", "Elena", "Farid", "Greta", "Hugo", "Ines", "Jonas"]
THINGS = ["apples", "books", "coins", "drums", "eggs", "flags", "grapes", "hats", "inks", "jars"]
PLACES = ["market", "library", "harbour", "station", "museum", "orchard", "stadium", "bakery"]


def problem(drawn):
    a, b, c = (drawn.randint(2, 99) for _ in range(3))
    first, second = drawn.sample(NAMES, 2)
    thing, place, day = drawn.choice(THINGS), drawn.choice(PLACES), drawn.randint(1, 28)
    text = (
        f"On day {day} {first} carries {a} {thing} to the {place} and meets {second}, who brings "
        f"{b} more and then gives away {c} of them near the {drawn.choice(PLACES)}; how many "
        f"{thing} are left with {first} and {second} together?"
    )
    return text, a + b - c


def near(text, drawn):
    own = text.split()
    own[drawn.randrange(len(own) - 10, len(own))] = drawn.choice(["now", "then", "here"])
    return " ".join(own)


def test_what_is_wrong_goes_and_what_is_right_stays(tmp_path):
    pytest.importorskip("datasketch")
    pytest.importorskip("math_verify")
    drawn = random.Random(0)
    clean = [problem(drawn) for _ in range(120)]
    test = [problem(drawn) for _ in range(30)]
    planted = {
        "clean": clean,
        "exact": [(text.upper(), answer) for text, answer in clean[:18]],
        "near": [(near(text, drawn), answer) for text, answer in clean[20:38]],
        "leak": [(f"Please solve: {text}", answer) for text, answer in test[:20]],
    }
    truth = {text: str(answer) for rows in planted.values() for text, answer in rows}
    requests = [
        Request.of(text, source=f"{kind}/{i}", reference=str(answer), sampling=Sampling(n=2))
        for kind, rows in planted.items()
        for i, (text, answer) in enumerate(rows)
    ]

    def answer(questions):
        for each in questions:
            own = random.Random(each.seed)
            right = truth[each.messages[-1].content]
            said = right if own.random() < 0.7 else str(int(right) + own.randint(1, 9))
            lost = own.random() < 0.05
            yield Response(each.id, each.sample, "no idea" if lost else f"Add.\n#### {said}")

    leak = records.step(decontaminated, against=[text for text, _ in test])
    written = records.write(
        requests,
        Teacher("scripted", "1", answer),
        tmp_path / "set",
        before=[records.step(exact_duplicates), records.step(near_duplicates), leak],
        after=[records.step(read_marker), records.step(verified_mathematics, workers=1), leak],
    )
    stayed = list(written.records())
    dropped = list(written.dropped())
    assert not any(each.source.startswith("leak") for each in stayed)
    assert all(each.answer == truth[each.prompt[0].content] for each in stayed)
    # Of each pair of equal texts one is there; of near ones at least nine in ten were found.
    texts = [text for text, _ in clean[:18]]
    asked = {each.item.source for each in dropped if each.verdict.step == "exact_duplicates"}
    assert len(asked) == len(texts)
    close = [
        jaccard(pieces(a, 5, "characters"), pieces(b, 5, "characters")) >= 0.7
        for (a, _), (b, _) in zip(clean[20:38], planted["near"], strict=True)
    ]
    found = [each for each in dropped if each.verdict.step == "near_duplicates"]
    assert len(found) >= 0.9 * sum(close) > 10
    # Every right answer of what was asked is there: nothing right was dropped after asking.
    for each in dropped:
        if each.verdict.step == "verified_mathematics":
            assert each.item.answer != each.item.reference
    counts = {each["step"]: each for each in written.manifest["after"]}
    assert counts["read_marker"]["dropped"]["no marker"] > 0
    assert counts["decontaminated"]["kept"] == len(stayed) > 100
