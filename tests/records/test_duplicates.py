"""Exact, near and semantic duplicates, novelty, decontamination: planted defects are found."""

import dataclasses
import itertools
import random

import numpy as np
import pytest
from records.made import golden, kept, reasons, record

from jaxdistill import records
from jaxdistill.records import Request
from jaxdistill.records.contamination import decontaminated
from jaxdistill.records.duplicates import exact_duplicates, near_duplicates, rows_of_a_band
from jaxdistill.records.novelty import Pool, common_subsequence, novel, rouge_l
from jaxdistill.records.similarity import (
    HashedEmbedder,
    semantic_duplicates,
    similar,
    unlike,
)
from jaxdistill.records.texts import jaccard, normal, pieces, words

VOCABULARY = [f"word{i}" for i in range(800)]


def texts(count, seed=0, low=25, high=50):
    drawn = random.Random(seed)
    return [" ".join(drawn.choices(VOCABULARY, k=drawn.randint(low, high))) for _ in range(count)]


def swapped(text, drawn, share=0.04):
    own = text.split()
    for place in drawn.sample(range(len(own)), max(1, int(share * len(own)))):
        own[place] = drawn.choice(VOCABULARY)
    return " ".join(own)


def test_exact_duplicates_ignore_case_and_spaces_and_keep_the_first_id():
    items = [record("a", f"{t} ") for t in ("One  two", "one two", "ONE TWO", "three")]
    outcome = kept(exact_duplicates, items)
    assert reasons(outcome) == {"duplicate": 2}
    first = min(each.id for each in items if "three" not in each.prompt[0].content)
    assert {v.detail for _, v in outcome.dropped} == {first}
    assert kept(exact_duplicates, items, of="answer").counts[0]["dropped"] == {"duplicate": 3}


def test_what_stays_does_not_depend_on_the_order_of_records():
    pytest.importorskip("datasketch")
    base = texts(60)
    drawn = random.Random(1)
    items = [record(prompt=t) for t in (*base, *(swapped(t, drawn) for t in base[:30]))]
    for function in (exact_duplicates, near_duplicates, novel):
        found = set()
        for run in range(3):
            random.Random(run).shuffle(items)
            found.add(tuple(each.id for each in kept(function, items).kept))
        assert len(found) == 1, function


def test_planted_near_duplicates_are_found():
    pytest.importorskip("datasketch")
    base, drawn = texts(400), random.Random(1)
    planted = [swapped(t, drawn) for t in base[:120]]
    shingles = [pieces(t, 5, "characters") for t in base]
    near = [jaccard(shingles[i], pieces(t, 5, "characters")) >= 0.7 for i, t in enumerate(planted)]
    items = [record(prompt=t) for t in (*base, *planted)]
    outcome = kept(near_duplicates, items, threshold=0.7)
    pairs = [(each.prompt[0].content, v) for each, v in outcome.dropped]
    by_id = {each.id: each.prompt[0].content for each in items}
    assert sum(near) > 80
    assert len(pairs) >= 0.97 * sum(near)
    for text, verdict in pairs:  # every one is exactly what is said of it
        other = by_id[verdict.detail]
        exact = jaccard(pieces(text, 5, "characters"), pieces(other, 5, "characters"))
        assert verdict.score == exact >= 0.7


def test_near_duplicates_agree_with_datasketch():
    pytest.importorskip("datasketch")
    case = golden("near_pairs_datasketch")
    for (first, second), exact in zip(case["pairs"], case["exact"], strict=True):
        ours = jaccard(pieces(first, 5, "characters"), pieces(second, 5, "characters"))
        assert ours == pytest.approx(exact, abs=1e-12)
        items = [record(prompt=first, name="a"), record(prompt=second, name="b")]
        outcome = kept(near_duplicates, items, threshold=0.7)
        assert len(outcome.dropped) == (exact >= 0.7), (exact, first)


@pytest.mark.parametrize(("threshold", "permutations"), [(0.7, 128), (0.5, 128), (0.9, 64)])
def test_bands_find_pairs_at_the_threshold(threshold, permutations):
    rows = rows_of_a_band(threshold, permutations, 0.95)
    for more, enough in ((rows, True), (rows + 1, False)):
        chance = 1 - (1 - threshold**more) ** (permutations // more)
        assert (chance >= 0.95) == enough


def test_short_and_empty_texts_are_compared_too():
    pytest.importorskip("datasketch")
    items = [record(prompt=t, name=str(i)) for i, t in enumerate(("", "ab", "", "AB", "abc"))]
    assert [each.id for each in kept(near_duplicates, items).kept] == ["0", "1", "4"]


def test_words_of_every_script():
    assert words("知识蒸馏 is知") == ["知", "识", "蒸", "馏", "is", "知"]
    assert words("ひらがな") == list("ひらがな")
    assert normal("\u00c9  e\u0301\n") == "\u00e9 \u00e9"


# --- novelty -----------------------------------------------------------------------------------


def longest(a, b):
    table = np.zeros((len(a) + 1, len(b) + 1), int)
    for i, j in itertools.product(range(len(a)), range(len(b))):
        same = table[i, j] + 1
        table[i + 1, j + 1] = same if a[i] == b[j] else max(table[i, j + 1], table[i + 1, j])
    return table[-1, -1]


def test_the_longest_common_subsequence_is_that_of_the_table():
    drawn = random.Random(0)
    for _ in range(60):
        a, b = (drawn.choices("abcd", k=drawn.randint(0, 80)) for _ in range(2))
        assert common_subsequence(a, b) == longest(a, b)
    assert rouge_l([], []) == 0.0


@pytest.mark.parametrize("threshold", [0.5, 0.7, 0.9, 1.0])
def test_the_index_misses_nothing(threshold):
    drawn = random.Random(3)
    base = [t.split() for t in texts(40, low=5, high=14)]
    many = [*base, *(swapped(" ".join(t), drawn, 0.2).split() for t in base for _ in range(3))]
    pool = Pool(threshold, many)
    held = []
    for text in many:
        best = next((n for n, each in enumerate(held) if rouge_l(text, each) >= threshold), None)
        assert pool.nearest(text)[1] == best
        pool.add(text)
        held.append(text)


def test_chinese_is_compared_by_characters():
    items = [
        record(prompt="人们在图书馆里读书", name="a"),
        record(prompt="人们在图书馆读书", name="b"),
    ]
    outcome = kept(novel, items, threshold=0.7)
    assert [each.id for each in outcome.kept] == ["a"]
    assert outcome.dropped[0][1].score == pytest.approx(2 * 8 / 17)
    assert len(kept(novel, items, threshold=0.96).kept) == 2


def test_a_pool_that_is_there_already_counts():
    items = [record(prompt="the cat sat on the mat"), record(prompt="something else entirely")]
    outcome = kept(novel, items, pool=["The cat sat on a mat."])
    assert outcome.dropped[0][1].detail == "number 0 of 'pool'"
    assert len(outcome.kept) == 1


# --- decontamination ---------------------------------------------------------------------------


def test_every_planted_leak_is_found_and_nothing_else():
    test, clean = texts(40, seed=5), texts(200, seed=6)
    drawn = random.Random(0)
    planted = []
    for text in test[:20]:
        own = text.split()
        start = drawn.randrange(len(own) - 13)
        planted.append(" ".join([*clean[0].split()[:5], *own[start : start + 13], "and more"]))
    short = "what is 2 + 3"
    items = [record(prompt=t) for t in (*clean, *planted, "What is 2 + 3?", "say what is 2 + 3 ok")]
    outcome = kept(decontaminated, items, against=[*test, short])
    assert {each.prompt[0].content for each, _ in outcome.dropped} == {*planted, "What is 2 + 3?"}


def test_twelve_words_of_a_test_are_no_leak():
    test = texts(1, seed=5)
    items = [record(prompt=" ".join(test[0].split()[:12]) + " other words")]
    assert len(kept(decontaminated, items, against=test).kept) == 1
    assert not kept(decontaminated, items, against=test, n=12).kept


def test_leaks_are_found_before_anybody_is_asked_and_in_answers(tmp_path):
    test = texts(3, seed=5)
    asked = []

    def answer(questions):
        for each in questions:
            asked.append(each)
            quoting = each.messages[-1].content == "tell"
            yield records.Response(each.id, 0, test[1] if quoting else "nothing")

    step = records.step(decontaminated, against=test)
    written = records.write(
        [Request.of(t, source=t) for t in (test[0], "tell", "fine")],
        records.Teacher("quoting", "1", answer),
        tmp_path / "set",
        before=[step],
        after=[step],
    )
    assert len(asked) == 2
    assert len(written) == 1
    assert written.manifest["before"][0]["dropped"] == {"13 words of a test set": 1}
    assert written.manifest["after"][0]["dropped"] == {"13 words of a test set": 1}


# --- meaning -----------------------------------------------------------------------------------


def turned(angle):
    return [np.cos(angle), np.sin(angle)]


def angles(items):
    return np.array([turned(float(each)) for each in items], np.float32)


@pytest.mark.parametrize("block", [3, 8, 64])
def test_semantic_duplicates_are_those_of_all_pairs(block):
    drawn = np.random.default_rng(0).uniform(0, 2 * np.pi, 20)
    items = sorted((record(prompt=f"{a:.6f}") for a in drawn), key=lambda each: each.id)
    rows = angles([each.prompt[0].content for each in items])
    left: list[int] = []
    for i in range(len(items)):
        if not any(rows[i] @ rows[j] >= 0.97 for j in left):
            left.append(i)
    outcome = kept(semantic_duplicates, items, embedder=angles, threshold=0.97, block=block)
    assert [each.id for each in outcome.kept] == [items[i].id for i in left]
    stayed = {each.id for each in outcome.kept}
    for _, verdict in outcome.dropped:
        assert verdict.detail in stayed
        assert verdict.score >= 0.97
    assert 2 < len(left) < 18


def test_paraphrases_of_a_test_set_are_found():
    items = [record(prompt=str(a)) for a in (0.0, 0.5, 3.0)]
    outcome = kept(unlike, items, embedder=angles, against=["0.1", "9", "2.2"], threshold=0.95)
    assert sorted(each.prompt[0].content for each in outcome.kept) == ["0.5"]
    details = {each.prompt[0].content: v.detail for each, v in outcome.dropped}
    assert details == {"0.0": "number 0", "3.0": "number 1"}


def test_translations_that_say_something_else_are_dropped():
    items = [record("0.1", "0"), record("2", "0")]
    outcome = kept(similar, items, embedder=angles, threshold=0.8)
    assert [each.answer for each in outcome.kept] == ["0.1"]
    assert outcome.dropped[0][1].score == pytest.approx(np.cos(2), abs=1e-6)


def test_the_embedder_without_weights():
    embedder = HashedEmbedder()
    rows = embedder(["a red bird sings", "A red bird sang", "tax law of 1987", ""])
    close = rows @ rows.T
    assert close[0, 1] > 0.6 > 0.3 > abs(close[0, 2])
    assert not rows[3].any()
    np.testing.assert_array_equal(
        rows, embedder(["a red bird sings", "A red bird sang", "tax law of 1987", ""])
    )
    assert records.step(similar, embedder=embedder).settings["embedder"] == "hashed-512-3 1"


@pytest.mark.parametrize(
    ("embedder", "said"),
    [
        (lambda texts: np.zeros((1, 2)), "a row of each text: of 3 texts this one made"),
        (lambda texts: np.full((len(texts), 2), np.nan), "not finite"),
    ],
)
def test_embedders_that_do_not_embed(embedder, said):
    items = [record(prompt=str(i)) for i in range(3)]
    with pytest.raises(ValueError, match=said):
        kept(semantic_duplicates, items, embedder=embedder)


@pytest.mark.parametrize(
    ("function", "settings", "said"),
    [
        (near_duplicates, {"threshold": 1.5}, "threshold=1.5 must be at most 1"),
        (near_duplicates, {"treshold": 0.5}, "did you mean 'threshold'"),
        (near_duplicates, {"of": "awnser"}, "of='awnser' must be"),
        (novel, {"threshold": 0}, "threshold=0 must be"),
        (decontaminated, {"against": []}, "no words to search for"),
        (decontaminated, {}, "needs 'against'"),
        (unlike, {"embedder": angles, "against": []}, "has no texts"),
        (semantic_duplicates, {}, "needs 'embedder'"),
    ],
)
def test_settings_are_refused_before_anything_runs(function, settings, said):
    if function is near_duplicates:
        pytest.importorskip("datasketch")
    with pytest.raises(ValueError, match=said):
        records.step(function, **settings)


def test_steps_on_answers_cannot_come_before_them(tmp_path):
    step = records.step(exact_duplicates, of="answer")
    with pytest.raises(ValueError, match="before it is answered: put it into 'after'"):
        records.write(
            [Request.of("a")],
            records.Teacher("t", "1", lambda questions: []),
            tmp_path / "set",
            before=[step],
        )


def test_a_hash_stands_for_many_texts():
    few, many = (
        records.step(decontaminated, against=[f"text {i}" for i in range(n)]) for n in (3, 30)
    )
    assert few.settings["against"] == ["text 0", "text 1", "text 2"]
    assert many.settings["against"]["count"] == 30
    other = records.step(decontaminated, against=[f"text {i}" for i in range(1, 31)])
    assert other.settings["against"] != many.settings["against"]
    assert dataclasses.is_dataclass(records.Record)
