"""Requests that nobody has written: a grid of what is wanted, and items that a teacher makes up."""

from __future__ import annotations

import dataclasses
import itertools
import string
from collections.abc import Callable, Iterable, Mapping, Sequence

import numpy as np

from jaxdistill._errors import listed, unknown
from jaxdistill.records.answers import Answers, Teacher, ask
from jaxdistill.records.nouns import Record, made_from, record_of
from jaxdistill.records.novelty import Pool
from jaxdistill.records.requests import Request, Sampling
from jaxdistill.records.steps import draw
from jaxdistill.records.texts import words
from jaxdistill.settings import Count, Natural, Positive, checked


@checked
def curate(
    question: str,
    grid: Mapping[str, Sequence[str]],
    *,
    each: Count = 1,
    name: str = "curated",
    sampling: Sampling | None = None,
) -> list[Request]:
    """Requests for items of every combination of what is wanted: topics, difficulties, styles.

    Args:
        question: with the names of the grid in braces.
        grid: for each name its values.
        each: items of every combination.
        name: what their sources begin with.
        sampling: how the teacher draws; ``n`` is ``each``.

    Returns:
        A request for each combination, which stands in its ``meta``.

    Raises:
        ValueError: for a name of the grid that the question does not ask for, one that it asks for
            and the grid has not, and a name without values.

    Example:
        >>> grid = {"topic": ["fractions", "angles"], "level": ["easy", "hard"]}
        >>> found = curate("Write a {level} exercise about {topic}.", grid, each=3)
        >>> len(found), found[-1].messages[0].content, found[-1].sampling.n
        (4, 'Write a hard exercise about angles.', 3)
    """
    asked = {key for _, key, _, _ in string.Formatter().parse(question) if key is not None}
    if strange := sorted(asked - set(grid)):
        raise ValueError(unknown("name in the question", strange[0], grid))
    for key in sorted(grid):
        if key not in asked:
            raise ValueError(f"the question does not ask for {key!r}: write {{{key}}} into it")
        if not grid[key]:
            raise ValueError(f"{key!r} has no values")
    drawn = dataclasses.replace(sampling or Sampling(), n=each)
    found = []
    for values in itertools.product(*grid.values()):
        cell = dict(zip(grid, values, strict=True))
        source = "/".join([name, *map(str, values)])
        found.append(Request.of(question.format(**cell), source=source, sampling=drawn, meta=cell))
    return found


@checked
def expand(
    seeds: Iterable[str],
    teacher: Teacher,
    question: Callable[[Sequence[str]], str],
    read: Callable[[str], Iterable[str]],
    *,
    rounds: Count = 3,
    questions: Count = 8,
    shown: Count = 4,
    threshold: Positive = 0.7,
    sampling: Sampling | None = None,
    answers: Answers | None = None,
    seed: Natural = 0,
) -> list[Record]:
    """Items that a teacher makes up from examples, which in turn are examples of the next round.

    An item is new if its ROUGE-L to all that are there is below a threshold (Wang et al.,
    Self-Instruct, 2023).

    Args:
        seeds: the first items.
        teacher: who is asked.
        question: from some items to what is asked about them.
        read: from an answer to the items in it.
        rounds: how often.
        questions: in each round, each with other examples.
        shown: examples of a question.
        threshold: the similarity from which an item is not new; of one-word items anything above
            0 and up to 1 asks that they differ.
        sampling: how the teacher draws.
        answers: where its answers are kept; nobody is asked twice.
        seed: of the examples.

    Returns:
        A record for each new item, in the order in which they came: ``answer`` is the item,
        ``meta`` has the ``round`` and the ``examples``. The next request about it takes its ``id``
        as its source.

    Raises:
        ValueError: without seeds, and where a question has no answer.

    Example:
        >>> from jaxdistill.records import scripted
        >>> def script(question):
        ...     shown = question.messages[-1].content.split()
        ...     return "\\n".join(word + word[-1] for word in shown)
        >>> teacher = scripted(script, name="stutterer", revision="1")
        >>> found = expand(["ab", "cd"], teacher, " ".join, str.splitlines, rounds=1, shown=2)
        >>> sorted(each.answer for each in found), found[0].meta["round"]
        (['abb', 'cdd'], 0)
    """
    first = list(seeds)
    if not first:
        raise ValueError("expand needs seeds: the first question shows examples")
    held = Answers() if answers is None else answers
    pool, items, found = Pool(threshold), list(first), []
    for each in first:
        pool.add(words(each))
    drawn = sampling or Sampling()
    for turn in range(rounds):
        requests = []
        for number in range(questions):
            where = f"expand/{turn}/{number}"
            key = int(draw(seed, where) * 2**52)
            order = np.random.default_rng(key).permutation(len(items))[:shown]
            examples = [items[place] for place in order]
            text = question(examples)
            meta = {"round": turn, "examples": examples}
            requests.append(Request.of(text, source=where, sampling=drawn, meta=meta))
        asked = [each for request in requests for each in request.questions()]
        # Two questions with the same examples are one.
        open_ = list({(each.id, each.sample): each for each in asked}.values())
        if failed := ask(teacher, open_, held):
            said = listed(sorted({each.error for each in failed}), 3)
            raise ValueError(f"{len(failed)} of {len(open_)} questions failed ({said})")
        for request in requests:
            for each in request.questions():
                parent = record_of(request, held.get(teacher, each))
                for number, item in enumerate(map(str.strip, read(parent.raw))):
                    own = words(item)
                    if not own or pool.nearest(own)[1] is not None:
                        continue
                    pool.add(own)
                    items.append(item)
                    found.append(made_from([parent], "expand", number, answer=item, raw=item))
    return found
