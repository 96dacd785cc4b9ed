"""Teachers read from disk give what live ones give, and a cache of anything else is refused."""

import dataclasses
import os
import shlex
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import linen as nn

from jaxdistill import losses, targets
from jaxdistill.data import augment, mixing, sources, views
from jaxdistill.data.arrays import arrays
from jaxdistill.data.records import subset
from jaxdistill.data.seeded import seeded
from jaxdistill.data.stream import stream
from jaxdistill.distiller import model_to_model
from jaxdistill.frameworks.linen import from_linen
from jaxdistill.models import MLP
from jaxdistill.objective import match
from jaxdistill.store import CODECS, CONTAINERS, Damaged, open_store
from jaxdistill.training import teacher_cache
from jaxdistill.training.lock import locked

DIGITS = subset(sources.digits(), np.arange(300))
TEACHER = from_linen(MLP(widths=(32, 16)))
VIEWS = {
    "plain": views.augmented(),
    "crops": views.augmented((augment.random_resized_crop(size=8), augment.flip())),
    "mixup": views.chain(
        views.augmented((augment.random_resized_crop(size=8),)), views.mixed(mixing.mixup, 10)
    ),
    "cutmix": views.chain(views.augmented(), views.mixed(mixing.cutmix, 10)),
}


@pytest.fixture(scope="module")
def variables():
    return TEACHER.init(jax.random.key(0), DIGITS.gather(np.arange(2))["image"])


def a_cache(variables, view="plain", **settings):
    fixed = {
        "source": DIGITS,
        "targets": targets.live(TEACHER, inputs="teacher", taps=("hidden_1",)),
        "frozen": {"teacher": variables},
        "outputs": {"out": {"codec": "dense"}, "hidden_1": {"codec": "dense"}},
        "prepare": VIEWS[view],
        "views": 2,
        "pairs": view in ("mixup", "cutmix"),
        "about": {"preprocessing": {"view": view}},
    }
    return teacher_cache.Cache(**{**fixed, **settings})


def decoded(cache, name, batch):
    codec = teacher_cache.codecs(cache)[name]
    return codec.decode({field: batch[f"cached/{name}/{field}"] for field in codec.fields})


def write(cache, path, **settings):
    fixed = {"container": "npy", "batch_size": 64}
    return teacher_cache.write(cache, path, quiet=True, **{**fixed, **settings})


@pytest.mark.parametrize("view", VIEWS)
@pytest.mark.parametrize("container", ["npy", "array_record"])
def test_cached_arrays_equal_live_ones_on_replayed_views(tmp_path, variables, view, container):
    if container == "array_record" and view != "mixup":
        pytest.skip("one view is enough for a second container")
    cache = a_cache(variables, view)
    store = write(cache, tmp_path / "c", container=container)
    attached = targets.attach(DIGITS, store)
    assert len(attached) == 600
    # Another order and another size of the batch than the writer had.
    rows = np.random.default_rng(0).permutation(600)[:37]
    batch = attached.gather(rows)
    again = seeded(DIGITS, 2, pairs=cache.pairs).gather(rows)
    np.testing.assert_array_equal(batch["view_seed"], again["view_seed"])
    prepared = cache.prepare({k: v for k, v in batch.items() if k != "partner"}, jax.random.key(9))
    live = cache.targets({"teacher": variables}, prepared, jax.random.key(9), 0)
    for name in cache.outputs:
        np.testing.assert_allclose(decoded(cache, name, batch), live[name], atol=1e-6, rtol=0)


def student_losses(source, goal, frozen, view):
    student = from_linen(MLP(widths=(12,)))
    distiller = model_to_model(
        student,
        goal,
        match(losses.hinton_kd, name="kd", temperature=4.0),
        optax.adam(1e-2),
        inputs="student",
        prepare=VIEWS[view],
    )
    data = stream(source, 50, seed=3)
    drop = ("partner",)
    batch = {k: v for k, v in data.at(0).items() if k not in drop}
    state = jax.jit(distiller.init)(jax.random.key(5), frozen, batch)
    step, found = jax.jit(distiller.step), []
    for number in range(10):
        batch = {k: v for k, v in data.at(number).items() if k not in drop}
        state, metrics = step(state, frozen, batch)
        found.append(float(metrics["loss"][0]))
    return found


@pytest.mark.parametrize("view", ["crops", "mixup"])
def test_a_student_cannot_tell_a_cache_from_its_teacher(tmp_path, variables, view):
    cache = a_cache(variables, view)
    cache = dataclasses.replace(
        cache, targets=targets.merge({"teacher": cache.targets}),
        outputs={"teacher/out": {"codec": "dense"}},
    )  # fmt: skip
    store = write(cache, tmp_path / "c")
    attached = targets.attach(DIGITS, store)
    cached = targets.cached(teacher_cache.codecs(cache))
    live = targets.live(TEACHER, inputs="teacher")
    from_cache = student_losses(attached, cached, {}, view)
    from_teacher = student_losses(attached, live, {"teacher": variables}, view)
    np.testing.assert_allclose(from_cache, from_teacher, rtol=1e-5)
    assert from_cache[-1] < from_cache[0]


def test_several_devices_and_sizes_of_a_batch_write_the_same(tmp_path, variables):
    from jaxdistill.training.sharding import make_mesh

    cache = a_cache(variables, "crops")
    one = write(cache, tmp_path / "1", mesh=make_mesh({"data": 1}))
    eight = write(cache, tmp_path / "8", mesh=make_mesh({"data": 4, "fsdp": 2}))
    rows = np.arange(600)
    a, b = one.read(rows), eight.read(rows)
    for name in a:
        np.testing.assert_allclose(a[name], b[name], atol=1e-6)
    with pytest.raises(ValueError, match="a batch of 64 records cannot be shared out over 5"):
        write(cache, tmp_path / "5", mesh=make_mesh({"data": 5}))


def test_a_part_of_the_records_is_found_by_id(tmp_path, variables):
    store = write(a_cache(variables, "crops"), tmp_path / "c")
    some = subset(DIGITS, np.array([250, 3, 77]))
    attached = targets.attach(some, store)
    assert [attached.ids[i] for i in (0, 3)] == ["digits/0250#0", "digits/0250#1"]
    whole = targets.attach(DIGITS, store)
    a, b = attached.gather(np.array([4])), whole.gather(np.array([303]))
    np.testing.assert_array_equal(a["cached/out/values"], b["cached/out/values"])
    with pytest.raises(ValueError, match="no arrays of 100 of these 100 records"):
        targets.attach(subset(sources.digits(), np.arange(500, 600)), store)
    mixed = write(a_cache(variables, "mixup"), tmp_path / "m")
    with pytest.raises(ValueError, match="lacks records that others were mixed with"):
        targets.attach(some, mixed).gather(np.array([0]))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda c: {"frozen": {"teacher": jax.tree.map(lambda x: x + 1, c.frozen["teacher"])}},
         r"teachers\.teacher: '[0-9a-f]{32}' there, '[0-9a-f]{32}' now"),
        (lambda c: {"about": {"preprocessing": {"view": "flips"}}},
         r"preprocessing\.view: 'crops' there, 'flips' now"),
        (lambda c: {"seed": 1}, r"views\.seed: 0 there, 1 now"),
        (lambda c: {"outputs": {**c.outputs, "out": {"codec": "top_k", "k": 2}}},
         r"outputs\.out\.codec: 'dense' there, 'top_k' now"),
        (lambda c: {"source": dataclasses.replace(
            c.source, info={**c.source.info, "tokenizer": "t5", "vocabulary": 32_128})},
         r"tokenizer: 'absent' there, 't5' now\n- vocabulary: 'absent' there, 32128 now"),
    ],
    ids=["teacher", "crops", "views", "codec", "tokenizer"],
)  # fmt: skip
def test_a_cache_of_something_else_is_refused(tmp_path, variables, change, words):
    cache = a_cache(variables, "crops")
    write(cache, tmp_path / "c")
    other = dataclasses.replace(cache, **change(cache))
    with pytest.raises(ValueError, match=words):
        open_store(tmp_path / "c", teacher_cache.identity(other))
    with pytest.raises(ValueError, match=words):
        write(other, tmp_path / "c")


def test_another_vocabulary_is_refused_with_both_sizes(tmp_path, variables):
    cache = a_cache(variables)
    write(cache, tmp_path / "c")
    net = from_linen(MLP(widths=(32, 16), classes=12))
    frozen = {"teacher": net.init(jax.random.key(0), DIGITS.gather(np.arange(2))["image"])}
    other = dataclasses.replace(
        cache, targets=targets.live(net, inputs="teacher", taps=("hidden_1",)), frozen=frozen
    )
    with pytest.raises(ValueError, match=r"outputs\.out\.shape: \[10\] there, \[12\] now"):
        write(other, tmp_path / "c")


def test_records_with_another_content_are_refused(tmp_path, variables):
    store = write(a_cache(variables), tmp_path / "c")
    records = DIGITS.gather(np.arange(300))
    brighter = arrays(
        {"image": np.minimum(records["image"] * 1.1, 1), "label": records["label"]},
        list(DIGITS.ids),
    )
    with pytest.raises(ValueError, match="has not the content that the teacher"):
        targets.attach(brighter, store)
    relabelled = arrays(
        {"image": records["image"], "label": records["label"] * 0}, list(DIGITS.ids)
    )
    assert len(targets.attach(relabelled, store)) == 600


def test_other_tokens_are_refused_when_they_are_read(tmp_path):
    table = nn.Embed(50, 7)
    net = from_linen(nn.Sequential([table]))
    tokens = np.random.default_rng(0).integers(0, 50, (40, 6)).astype(np.int32)
    text = arrays({"tokens": tokens}, name="text")
    view = lambda batch, key: {**batch, "teacher": batch["tokens"]}  # noqa: E731
    frozen = {"teacher": net.init(jax.random.key(0), tokens[:1])}
    cache = teacher_cache.Cache(
        text,
        targets.live(net, inputs="teacher"),
        frozen,
        {"out": {"codec": "top_k", "k": 3, "missing": "sparse"}},
        prepare=view,
    )
    store = write(cache, tmp_path / "c", batch_size=8)
    found = targets.attach(text, store).gather(np.arange(3))
    assert decoded(cache, "out", found)["ids"].shape == (3, 6, 3)
    shifted = arrays({"tokens": np.roll(tokens, 1, axis=1)}, ids=list(text.ids), name="text")
    manifest = store.manifest | {"samples": {}}
    careless = dataclasses.replace(store, manifest=manifest)
    with pytest.raises(ValueError, match="the tokens of 'text/0005' are not those"):
        targets.attach(shifted, careless).gather(np.array([5]))


def test_verify_recomputes_and_finds_another_teacher(tmp_path, variables):
    cache = a_cache(variables, "crops")
    store = write(cache, tmp_path / "c", part_bytes=20_000)
    good = teacher_cache.verify(cache, store)
    assert good["passed"]
    assert good["outputs"]["out"] == {"largest": pytest.approx(0, abs=1e-6), "agree": 1.0}
    other = dataclasses.replace(
        cache, frozen={"teacher": TEACHER.init(jax.random.key(1), np.zeros((1, 8, 8, 1)))}
    )
    bad = teacher_cache.verify(other, store)
    assert not bad["passed"]
    assert bad["outputs"]["out"]["agree"] < 0.5
    part = tmp_path / "c" / store.manifest["files"][1]["name"]
    content = bytearray(part.read_bytes())
    content[-50] ^= 1
    part.write_bytes(bytes(content))
    harmed = teacher_cache.verify(cache, open_store(tmp_path / "c", damage="skip"))
    assert harmed["faults"] == [f"{part.name}: its checksum is not that of the manifest"]
    rest = targets.attach(DIGITS, open_store(tmp_path / "c", damage="skip"))
    assert 0 < len(rest) < 600
    rest.gather(np.arange(len(rest)))
    whole = targets.attach(DIGITS, open_store(tmp_path / "c"))
    with pytest.raises(Damaged, match=part.name):
        whole.gather(np.arange(600))


def test_a_quantised_cache_keeps_its_bound_or_is_not_written(tmp_path, variables):
    loose = a_cache(variables, outputs={"out": {"codec": "quantised", "bound": 1.0}})
    store = write(loose, tmp_path / "a")
    bound = store.manifest["measures"]["out/error_bound"]["max"]
    batch = targets.attach(DIGITS, store).gather(np.arange(600))
    live = TEACHER.apply(*variables, batch["image"]).out
    assert 0 < np.abs(decoded(loose, "out", batch) - live).max() <= bound * (1 + 1e-5)
    tight = a_cache(variables, outputs={"out": {"codec": "quantised", "bound": 1e-7}})
    with pytest.raises(ValueError, match="above the bound 1e-07: raise the bound"):
        write(tight, tmp_path / "b")
    assert not (tmp_path / "b" / "manifest.json").exists()


@pytest.mark.parametrize(
    ("outputs", "words"),
    [
        ({"output": {"codec": "dense"}}, "did you mean 'out'"),
        ({"out": {"codec": "densse"}}, "did you mean 'dense'"),
        ({"out": {"codec": "top_k", "kk": 3}}, "key of codec 'top_k' 'kk'"),
        ({"out": {"codec": "top_k", "k": 11}}, "codec 'top_k' of 'out': .*11"),
        ({"out": {"codec": "top_k"}}, "codec 'top_k' of 'out': .*k"),
    ],
)
def test_bad_outputs_are_refused_before_anything_is_written(tmp_path, variables, outputs, words):
    with pytest.raises(ValueError, match=words):
        write(a_cache(variables, outputs=outputs), tmp_path / "c")
    assert not (tmp_path / "c").exists()


WRITER = Path(__file__).with_name("cache_writer.py")


def test_a_killed_writer_goes_on_where_it_stopped(tmp_path):
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}

    def start(path):
        return subprocess.Popen([sys.executable, str(WRITER), str(path)], env=environment)

    assert start(tmp_path / "whole").wait() == 0
    broken = tmp_path / "broken"
    process = start(broken)
    until = time.time() + 120
    while len(list(broken.glob("*.whole.json"))) < 3:
        assert process.poll() is None, "the writer was done before it could be killed"
        assert time.time() < until
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert not (broken / "manifest.json").exists()
    kept = {p: p.stat().st_mtime_ns for p in broken.glob("000-*.array_record")}
    assert len(kept) >= 3
    assert start(broken).wait() == 0
    assert all(p.stat().st_mtime_ns == t for p, t in kept.items())
    a, b = open_store(tmp_path / "whole"), open_store(broken)
    assert a.manifest["files"] == b.manifest["files"]
    rows = np.arange(len(a))
    for name, value in a.read(rows).items():
        np.testing.assert_array_equal(value, b.read(rows)[name])


def test_containers_hold_the_same(tmp_path, variables):
    cache = a_cache(variables, outputs={"out": {"codec": "sampled", "draws": 20, "slots": 8}})
    found = [
        write(cache, tmp_path / name, container=name).read(np.arange(600)) for name in CONTAINERS
    ]
    for other in found[1:]:
        for name, value in found[0].items():
            np.testing.assert_array_equal(value, other[name])
    assert (found[0]["out/counts"].sum(-1) <= 20).all()
    assert jnp.asarray(found[0]["out/counts"]).dtype == jnp.uint8


def test_a_disk_that_is_full_leaves_a_cache_to_go_on_with(tmp_path):
    disk = tmp_path / "disk"
    disk.mkdir()
    # A disk of 300 KiB, seen by this process alone; the cache takes several times that.
    mount = f"mount -t tmpfs -o size=300k tmpfs {disk}"
    alone = ["unshare", "--user", "--map-root-user", "--mount", "sh", "-c"]
    if not shutil.which("unshare") or subprocess.run([*alone, mount], check=False).returncode:
        pytest.skip("no small disk can be made here")
    command = shlex.join([sys.executable, str(WRITER), "--disk", str(disk)])
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    done = subprocess.run(
        [*alone, f"{mount} && {command}"],
        env=environment, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    message, kept = done.stdout.splitlines()[-2:]
    assert "No space left" in message
    assert "are whole: make room" in message
    assert int(kept.split()[0]) >= 2


LINES = subset(sources.digits(), np.arange(40))


def answering(spoil):
    """A cache of a teacher that says three numbers of every record, and of some what ``spoil``
    makes of them."""

    def goal(frozen, batch, key, step):
        out = batch["index"][:, None] + jnp.arange(3.0)[None] * frozen["teacher"]
        return {"fine": out, "out": jnp.where(batch["index"][:, None] == 7, spoil(out), out)}

    frozen = {"teacher": jnp.ones(())}
    outputs = {"fine": {"codec": "dense"}, "out": {"codec": "dense"}}
    return teacher_cache.Cache(LINES, goal, frozen, outputs, prepare=lambda batch, key: batch)


def one(place, value):
    return lambda out: out.at[:, place].set(value)


@pytest.mark.parametrize(
    "spoil", [one(1, jnp.nan), one(1, jnp.inf), lambda out: jnp.full_like(out, -jnp.inf)]
)
def test_a_teacher_whose_answer_is_no_number_is_refused(tmp_path, spoil):
    cache = answering(spoil)
    said = r"'out' is not finite for 1 of the records 0 to 39, .* 'digits/0007'"
    with pytest.raises(FloatingPointError, match=said):
        teacher_cache.write(cache, tmp_path / "cache", quiet=True, batch_size=8)
    assert not list((tmp_path / "cache").glob("000-*"))
    with pytest.raises(ValueError, match="is not finished"):
        open_store(tmp_path / "cache")


RULED_OUT = {
    "dense": {},
    "top_k": {"k": 2},
    "top_p": {"p": 0.9, "k": 2},
    "sampled": {"draws": 8, "slots": 3},
    "quantised": None,
    "polynomial": None,
}


@pytest.mark.parametrize("codec", CODECS)
def test_a_class_that_is_ruled_out_passes_where_the_codec_keeps_it(tmp_path, codec):
    settings = RULED_OUT[codec]
    own = {"codec": codec, **(settings or {})}
    if codec == "polynomial":
        own |= {"k": 3, "exact": 1, "terms": (0, 1)}
    cache = dataclasses.replace(answering(one(1, -jnp.inf)), outputs={"out": own})
    if settings is None:
        with pytest.raises(FloatingPointError, match="'out' is not finite for 1 of"):
            teacher_cache.write(cache, tmp_path / "cache", quiet=True, batch_size=8)
        return
    store = teacher_cache.write(cache, tmp_path / "cache", quiet=True, batch_size=8)
    batch = targets.attach(LINES, store).gather(np.arange(8))
    out = decoded(cache, "out", batch)
    assert out[7, 1] == -jnp.inf
    assert jnp.isfinite(out[:7]).any(-1).all()


def test_two_writers_of_one_cache_are_refused(tmp_path):
    cache = answering(lambda out: out)
    with locked(tmp_path / "cache"), pytest.raises(OSError, match="is in use by process"):
        teacher_cache.write(cache, tmp_path / "cache", quiet=True, batch_size=8)
    assert len(teacher_cache.write(cache, tmp_path / "cache", quiet=True, batch_size=8)) == 40
