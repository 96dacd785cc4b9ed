"""Configs with one thing wrong: none is planned, and what is wrong and what is possible is told.

300 seeded mutations of all configs in all of their variants: keys and names with a letter too
many, numbers that are no numbers, not finite, halves where things are counted, below zero; truth
values in words; metrics that nothing measures; recipes that name a stage twice or none.
"""

import copy
import random
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import pytest

from jaxdistill import config_files, recipe, registry
from jaxdistill.claims import arms_of
from jaxdistill.data import published, sentences, sources
from jaxdistill.data import text as texts
from jaxdistill.data.split import PARTS
from jaxdistill.records import Request, chat, plain, request_splits
from jaxdistill.registry import record_steps
from jaxdistill.registry.entries import forwarding
from jaxdistill.settings import Count, keys

COUNT = 300
# What a config may call as it likes, or say as it likes: no misspelling of these is a mistake.
FREE_KEYS = (
    "objective", "evaluate", "members", "arms", "contrasts", "variants", "outputs", "sources",
    "stages", "coefficients", "grid", "shares", "spans", "parts", "common", "mesh", "rules",
    "teachers",
)  # fmt: skip
FREE_TEXT = (
    "title", "sentence", "held_equal", "dir", "path", "pattern", "text", "prompt", "end", "start",
    "prefix", "from", "checkpoint", "no_decay", "table", "dataset", "test_split",
)  # fmt: skip
# Names that stand for something.
NAMES = (
    "name", "net", "loss", "evaluator", "schedule", "solver", "kind", "choice", "matching", "codec",
    "select", "returns", "gradient", "waypoints", "images_from", "whiten", "time", "weighting",
    "divergence", "average", "mode", "target", "distance", "container", "stage", "against",
    "classifier", "weights", "chosen", "metric",
)  # fmt: skip
COUNTS = (
    "steps", "batch_size", "every", "warmup", "nets", "depth", "width", "heads", "each", "epochs",
    "experts", "patch", "length", "labelled", "labels", "draws", "ratio", "chunk", "classes",
    "log_every", "keep", "accumulate", "points", "modes", "views", "records", "real_batch", "pool",
)  # fmt: skip
SIGNED = (
    "mean", "weight", "margin", "value", "scale", "alpha", "label", "seed", "start", "std",
    "offset", "low", "high", "scales",
)  # fmt: skip


def leaves(node: Any, path: tuple = ()) -> Iterator[tuple[tuple, Any]]:
    """All that a config says, by path; of sequences the entries too."""
    yield path, node
    items = node.items() if isinstance(node, Mapping) else ()
    if isinstance(node, (list, tuple)) and any(isinstance(each, Mapping) for each in node):
        items = enumerate(node)
    for key, value in items:
        if key not in FREE_TEXT:
            yield from leaves(value, (*path, key))


def mistakes(config: Mapping[str, Any]) -> list[tuple[str, tuple, Any]]:
    """Every way in which this config can be made wrong: the kind, the path, what is said there."""
    used = {*config["recipe"]}
    for arm in ((config.get("claim") or {}).get("arms") or {}).values():
        used |= {*(arm or {}).get("recipe", ())}
    found = [("recipe", ("recipe",), (*config["recipe"], config["recipe"][0]))]
    found += [("recipe", ("recipe",), (*config["recipe"], "studnet")), ("recipe", ("recipe",), ())]
    parts = [("data",), *(("stages", name) for name in sorted(used))]
    for path, value in (leaf for part in parts for leaf in leaves(at(config, part), part)):
        found += list(wrong(path, value))
    if config.get("claim"):
        found.append(("metric", ("claim", "metric"), config["claim"]["metric"] + "x"))
    return found


def wrong(path: tuple, value: Any) -> Iterator[tuple[str, tuple, Any]]:
    key = next((each for each in reversed(path) if isinstance(each, str)), "")
    # Which parts there are to be learned is known where they are, not where they are named.
    named = isinstance(value, Mapping) and key not in FREE_KEYS and value.get("name") != "parts"
    if named and value:
        yield "key", path, sorted(map(str, value))[0]
    if isinstance(value, bool):
        yield "truth", path, "yes"
    elif isinstance(value, (int, float)):
        yield "word", path, "many"
        yield "not finite", path, float("nan")
        if key in COUNTS and isinstance(value, int):
            yield "half", path, value + 0.5
        if key not in SIGNED:
            yield "below zero", path, -1 - value
    elif isinstance(value, str) and key in NAMES and value:
        yield "name", path, value + "x"


def at(config: Any, path: tuple) -> Any:
    for key in path:
        config = config[key]
    return config


def mutated(config: Any, kind: str, path: tuple, value: Any) -> tuple[Any, list[str]]:
    """The config with that mistake, and what must be said: of each of these one word."""
    config = listed(copy.deepcopy(config))
    if kind == "key":
        node = at(config, path)
        node[value + "x"] = node.pop(value)
        return config, [repr(value + "x")]
    at(config, path[:-1])[path[-1]] = value
    said = value if isinstance(value, str) or kind in ("recipe",) else repr(value)
    return config, [] if kind == "recipe" else [str(said)]


def listed(node: Any) -> Any:
    """Sequences of mappings as lists, so that entries can be changed."""
    if isinstance(node, Mapping):
        return {key: listed(value) for key, value in node.items()}
    if isinstance(node, tuple) and any(isinstance(each, Mapping) for each in node):
        return [listed(each) for each in node]
    return node


def images(shape: tuple[int, ...], classes: int) -> Any:
    count = 250 * classes if classes < 100 else 2 * classes
    image = np.zeros((count, *shape), np.uint8) + np.arange(count, dtype=np.uint8).reshape(
        -1, 1, 1, 1
    )
    source = sources.arrays({"image": image, "label": np.arange(count, dtype=np.int32) % classes})
    return lambda context, **_: (source, source)


def documents() -> Any:
    def read(context: Any, *, length: int, **_: Any) -> Any:
        parts = texts.four_domains(200_000)
        return texts.domains(parts, texts.byte_tokenizer(), length, validation=0.2, test=0.2)

    return read


def reviews(name: str) -> Any:
    said = ["good", "bad"] * 200
    labels = np.arange(400) % 2
    labels = labels / 2 if name in published.SCORED else labels
    others = said if name in published.PAIRS else None

    def read(context: Any, *, length: int, **_: Any) -> Any:
        given = sentences.Sentences("reviews", said, labels, others)
        source = sentences.encoded(given, texts.byte_tokenizer(), length)
        return source, source

    return read


def requests(real: Any) -> Any:
    """A reader of requests: those of a world are real, those of a file a few that are made here."""

    def read(context: Any, *, length: Count, task: Any = None, **rest: Any) -> Any:
        if task is not None and "path" not in task:
            rest.pop("path", None)
            return real(context, length=length, task=task, **rest)
        parts = [Request.of(str(i), reference="5", split=PARTS[i % 3]) for i in range(12)]
        return request_splits(parts, chat(texts.byte_tokenizer(), plain()), length)

    return read


@pytest.fixture(scope="module")
def configs():
    """Every variant of every config; what must be downloaded is made here, a few records of it."""
    patch = pytest.MonkeyPatch()
    table = registry.DATA
    for name, shape, classes in (
        ("tfds", (32, 32, 3), 10), ("cifar10", (32, 32, 3), 10), ("cifar100", (32, 32, 3), 100),
        ("imagenet2012", (224, 224, 3), 1000), ("image_folder", (224, 224, 3), 1000),
        ("mnist", (28, 28, 1), 10), ("fashion_mnist", (28, 28, 1), 10),
    ):  # fmt: skip
        patch.setitem(table, name, forwarding(table[name])(images(shape, classes)))
    for name in ("json_lines", "parquet", "text_files", "domain_files"):
        patch.setitem(table, name, forwarding(table[name])(documents()))
    for name in published.SETS:
        patch.setitem(table, name, forwarding(table[name])(reviews(name)))
    patch.setitem(table, "requests", forwarding(table["requests"])(requests(table["requests"])))
    words = record_steps.EMBEDDERS
    patch.setitem(words, "dictionary", forwarding(words["dictionary"])(lambda *_, **__: len))
    found = {}
    for name in config_files.names():
        for variant in config_files.variants(name):
            config = config_files.read(f"{name}:{variant}" if variant else name)
            for part in (config["data"], *(s.get("data") or {} for s in config["stages"].values())):
                takes = keys(table[part["name"]]) if part and "name" in part else ()
                part.pop("whiten", None)  # of zeros there is nothing to whiten
                part |= {k: "somewhere" for k in ("dir", "path") if k in takes and not part.get(k)}
            found[f"{name}:{variant}"] = config
    yield found
    patch.undo()


@pytest.fixture(scope="module")
def planned(configs):
    """Those that can be planned as they are, and the sets that they read."""
    read: dict[str, Any] = {}
    for config in configs.values():
        recipe.check_claim(config, recipe.resolve(config, read).read)
    return configs, read


def test_configs_can_be_planned_as_they_are(planned):
    configs, _ = planned
    assert len(configs) > 45


def arms_with(config, path):
    """The first arm of a claim that runs the stage of a path, where the recipe itself does not."""
    stage = path[1] if path[0] == "stages" else None
    if stage is None or stage in config["recipe"]:
        return []
    return [arm for arm in arms_of(config).values() if stage in arm["recipe"]][:1]


def test_no_mistake_passes(planned):
    configs, read = planned
    draw = random.Random(0)
    names = sorted(configs)
    passed, unsaid, kinds = [], [], set()
    for _ in range(COUNT):
        name = draw.choice(names)
        possible = mistakes(configs[name])
        kind = draw.choice(sorted({each[0] for each in possible}))
        mistake = draw.choice([each for each in possible if each[0] == kind])
        config, words = mutated(configs[name], *mistake)
        kinds.add(kind)
        where = f"{name} {kind} {'.'.join(map(str, mistake[1]))} {mistake[2]!r}"
        try:
            recipe.check_claim(config, recipe.resolve(config, dict(read)).read)
            recipe.plan(config)  # what depends on arrays is found where they are traced
            for arm in arms_with(config, mistake[1]):
                recipe.plan(arm)
        except (ValueError, FileNotFoundError) as refusal:
            key = str(next((k for k in reversed(mistake[1]) if isinstance(k, str)), ""))
            told = str(refusal)
            possible = any(
                word in told for word in ("Possible", "must", "names", "needs", "did you mean")
            )
            if (
                not possible
                or not all(word.rpartition("/")[2] in told for word in words)
                or (kind not in ("recipe", "key", "name") and key not in told)
            ):
                unsaid.append(f"{where}: {told[:300]}")
            continue
        passed.append(where)
    assert len(kinds) >= 8
    assert not passed + unsaid, "\n".join(passed + unsaid)
