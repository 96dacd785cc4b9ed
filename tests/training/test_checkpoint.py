"""What is saved comes back exactly; what is damaged or foreign is refused in words."""

import errno
import resource
from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxdistill._files import Damaged, checksum, read_sealed, write_json, write_sealed
from jaxdistill.training import checkpoint
from jaxdistill.training.checkpoint import (
    Checkpoints,
    digest,
    fingerprint,
    load_arrays,
    load_record,
    load_tree,
    save_tree,
)
from jaxdistill.training.sharding import make_mesh, place

NOISE = np.random.default_rng(0)


class Pair(NamedTuple):
    first: jax.Array
    second: dict


def tree():
    return Pair(
        jax.random.key(3),
        {
            "half": jnp.asarray(NOISE.normal(size=(3, 4)), jnp.bfloat16),
            "count": jnp.int32(7),
            "moments": (jnp.asarray(NOISE.normal(size=20_000), jnp.float32), {}),
        },
    )


def test_arrays_and_record_come_back_exactly(tmp_path):
    given = tree()
    record = {
        "plan": {"weights": np.array([0.1, 1 / 3]), "calls": np.int64(3)},
        "best": None,
        "list": [1, "a"],
    }
    save_tree(tmp_path / "x", given, record)
    loaded, found = load_tree(tmp_path / "x", jax.eval_shape(lambda: given))
    assert jax.tree.structure(loaded) == jax.tree.structure(given)
    assert fingerprint(loaded) == fingerprint(given)
    assert found["plan"]["weights"].dtype == np.float64
    np.testing.assert_array_equal(found["plan"]["weights"], [0.1, 1 / 3])
    assert found["plan"]["calls"] == 3
    assert (found["best"], found["list"]) == (None, [1, "a"])
    assert load_record(tmp_path / "x").keys() == record.keys()
    bare = load_arrays(tmp_path / "x")
    assert fingerprint(bare["second"]) == fingerprint(given.second)


def test_what_was_sharded_is_read_on_one_device_and_on_another_mesh(tmp_path):
    given = {"kernel": jnp.arange(64.0).reshape(8, 8)}
    rules = [("kernel", ("fsdp", None))]
    save_tree(tmp_path / "x", place(make_mesh({"data": 4, "fsdp": 2}), given, rules), {})
    alone = load_arrays(tmp_path / "x")["kernel"]
    assert len(alone.devices()) == 1
    other = place(make_mesh({"data": 1, "fsdp": 8}), given, rules)
    moved, _ = load_tree(tmp_path / "x", other)
    assert moved["kernel"].sharding == other["kernel"].sharding
    for found in (alone, moved["kernel"]):
        np.testing.assert_array_equal(found, given["kernel"])


def test_the_newest_stay_and_the_best(tmp_path):
    kept = Checkpoints(tmp_path, keep=2)
    assert kept.steps() == []
    for step in (1, 2, 3, 10):
        kept.save(step, {"w": jnp.full(2, step)}, {"at": step}, protect=1)
    assert kept.steps() == [1, 3, 10]
    loaded, record = kept.load(3, {"w": jax.ShapeDtypeStruct((2,), jnp.int32)})
    assert (loaded["w"].tolist(), record) == ([3, 3], {"at": 3})


def test_what_is_not_whole_is_no_checkpoint(tmp_path):
    kept = Checkpoints(tmp_path)
    kept.save(1, {"w": jnp.ones(2)}, {})
    (tmp_path / "0000000002").mkdir()
    (tmp_path / "0000000003.orbax-checkpoint-tmp").mkdir()
    assert kept.steps() == [1, 2]
    with pytest.raises(ValueError, match=r"0000000002 is damaged: .*checksums.json is missing"):
        load_record(tmp_path / "0000000002")
    checkpoint.remove_unfinished(tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["0000000001", "0000000002"]


def loaders(path):
    wanted = {"w": jax.ShapeDtypeStruct((20_000,), jnp.float32)}
    return (lambda: load_tree(path, wanted)), (lambda: load_arrays(path))


def test_a_missing_teacher_is_said_to_be_missing(tmp_path):
    for load in (*loaders(tmp_path / "teacher"), lambda: load_record(tmp_path / "teacher")):
        with pytest.raises(ValueError, match=r"there is no checkpoint .*teacher"):
            load()


@pytest.mark.parametrize("name", ["_CHECKPOINT_METADATA", "_METADATA", "manifest.ocdbt", "data"])
@pytest.mark.parametrize("share", [0.0, 0.5])
def test_a_truncated_teacher_is_refused(tmp_path, name, share):
    path = tmp_path / "teacher"
    save_tree(path, {"w": jnp.asarray(NOISE.normal(size=20_000), jnp.float32)}, {"a": 1})
    files = [file for file in path.rglob("*") if file.is_file()]
    if name == "data":
        torn = [max(files, key=lambda file: file.stat().st_size)]
    else:
        torn = [file for file in files if file.name == name]
    assert torn
    for file in torn:
        content = file.read_bytes()
        file.write_bytes(content[: int(share * len(content))])
    for load in loaders(path):
        with pytest.raises(ValueError, match="teacher is damaged: ") as caught:
            load()
        assert len(str(caught.value)) < 600


def test_a_teacher_of_another_architecture_is_refused_by_its_arrays(tmp_path):
    save_tree(tmp_path / "teacher", {"a": jnp.ones((2, 3)), "b": {"c": jnp.ones(4)}}, {})
    shape = jax.ShapeDtypeStruct((2, 5), jnp.float32)
    with pytest.raises(ValueError, match="holds other arrays than this net") as caught:
        load_tree(tmp_path / "teacher", {"a": shape, "d": shape})
    assert str(caught.value).splitlines()[1:] == [
        "- a: float32[2, 3] stored, float32[2, 5] here",
        "- b/c: float32[4] stored, absent here",
        "- d: absent stored, float32[2, 5] here",
    ]


@pytest.mark.parametrize("dtype", ["int32", "float16", "float8_e4m3fn"])
def test_arrays_of_another_type_are_refused_by_name(tmp_path, dtype):
    save_tree(tmp_path / "teacher", {"a": {"w": jnp.full(2, 1e30)}}, {})
    wanted = {"a": {"w": jax.ShapeDtypeStruct((2,), dtype)}}
    with pytest.raises(ValueError, match=rf"- a/w: float32\[2\] stored, {dtype}\[2\] here"):
        load_tree(tmp_path / "teacher", wanted)


@pytest.fixture
def small_disk():
    """Files may not grow beyond 30 kB: the system refuses to write as on a full disk."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (30_000, hard))
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_a_full_disk_leaves_the_checkpoints_before_it(tmp_path, small_disk):
    kept = Checkpoints(tmp_path, keep=1)
    kept.save(1, {"w": jnp.ones(2)}, {"at": 1})
    large = {"w": jnp.asarray(NOISE.normal(size=20_000), jnp.float32)}
    with pytest.raises(
        OSError, match=r"cannot save .*0000000002.*saved before it is whole"
    ) as caught:
        kept.save(2, large, {"at": 2})
    assert len(str(caught.value)) < 600
    assert [path.name for path in tmp_path.iterdir()] == ["0000000001"]
    np.testing.assert_array_equal(load_arrays(kept.path(1))["w"], np.ones(2))


def test_no_space_for_a_folder_is_said_alike(tmp_path, monkeypatch):
    def full(self, *args, **kwargs):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Path, "mkdir", full)
    with pytest.raises(OSError, match=r"cannot save .*No space left on device"):
        save_tree(tmp_path / "x", {"w": jnp.ones(2)}, {})


def test_other_faults_are_not_called_a_full_disk(tmp_path):
    with pytest.raises(Exception, match=r".") as caught:
        save_tree(tmp_path / "x", {"w": object()}, {})
    assert "cannot save" not in str(caught.value)
    assert not (tmp_path / "x").exists()


def test_orbax_leaves_the_log_as_it_was(tmp_path):
    import logging

    level = logging.getLogger("absl").level
    save_tree(tmp_path / "x", {"w": jnp.ones(2)}, {})
    assert logging.getLogger("absl").level == level


def test_fingerprints_see_names_types_shapes_and_bytes():
    given = {"a": np.arange(6.0), "b": np.ones(2)}
    others = [
        {"a": np.arange(6.0), "c": np.ones(2)},
        {"a": np.arange(6.0).astype(np.float32), "b": np.ones(2)},
        {"a": np.arange(6.0).reshape(2, 3), "b": np.ones(2)},
        {"a": np.nextafter(np.arange(6.0), 9), "b": np.ones(2)},
    ]
    found = {fingerprint(tree) for tree in (given, *others)}
    assert len(found) == 5
    assert fingerprint(jax.random.key(1)) != fingerprint(jax.random.key(2))
    assert digest({"a": 1, "b": (2, 3)}) == digest({"b": [2, 3], "a": 1}) != digest({"a": 1})


def test_json_is_strict_and_appears_at_once(tmp_path):
    write_json(tmp_path / "a.json", {"x": 1})
    with pytest.raises(ValueError, match="JSON"):
        write_json(tmp_path / "a.json", {"x": float("nan")})
    assert (tmp_path / "a.json").read_text() == '{\n  "x": 1\n}\n'


def test_every_bit_of_a_sealed_file_counts(tmp_path):
    path = tmp_path / "a.json"
    for data in ({}, {"a": [1, 2.5], "b": {"c": "\u00fc"}}):
        write_sealed(path, data)
        assert read_sealed(path) == data
        content = path.read_bytes()
        for bit in range(8 * len(content)):
            flipped = bytearray(content)
            flipped[bit // 8] ^= 1 << bit % 8
            path.write_bytes(bytes(flipped))
            with pytest.raises(Damaged, match=r"a\.json"):
                read_sealed(path)


def test_checksums_see_bits_and_places(tmp_path):
    words = NOISE.integers(0, 2**63, 4096)
    path = tmp_path / "file"
    found = set()

    def see(content):
        path.write_bytes(content)
        found.add(checksum(path))

    see(words.tobytes())
    see(words.tobytes() + b"\0")
    see(words.tobytes()[:-1])
    for bit in (0, 70_001, 262_143):
        flipped = bytearray(words.tobytes())
        flipped[bit // 8] ^= 1 << bit % 8
        see(bytes(flipped))
    for a, b in ((0, 1), (0, 512), (5, 1600)):
        swapped = words.copy()
        swapped[[a, b]] = swapped[[b, a]]
        see(swapped.tobytes())
    see(np.roll(words, 512).tobytes())
    see(b"")
    assert len(found) == 11
