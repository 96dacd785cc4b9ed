"""A store is whole or resumable, names what is wrong, and refuses to be of something else."""

import json
import resource
import shutil
import signal

import jax
import numpy as np
import pytest

from jaxdistill.store import CONTAINERS, Damaged, Layout, begin, open_store
from jaxdistill.store.layout import damaged

LAYOUT = Layout(
    {
        "id": jax.ShapeDtypeStruct((16,), np.uint8),
        "value": jax.ShapeDtypeStruct((2, 3), np.float32),
        "small": jax.ShapeDtypeStruct((), np.float16),
    }
)
IDENTITY = {"teachers": {"teacher": "abc"}, "outputs": {"out": {"codec": "dense"}}}
IDS = [f"record/{i}" for i in range(50)]


def rows_of(first, last):
    numbers = np.arange(first, last)
    return {
        "id": np.repeat(numbers[:, None], 16, 1).astype(np.uint8),
        "value": (numbers[:, None, None] + np.arange(6).reshape(2, 3) / 8).astype(np.float32),
        "small": numbers.astype(np.float16),
    }


def write(path, container="npy", stop=None, identity=IDENTITY):
    writer = begin(path, identity, LAYOUT, 100, container=container, part_bytes=LAYOUT.width * 30)
    for number, (first, last) in enumerate(writer.parts()):
        if number < writer.whole():
            continue
        if number == stop:
            return writer
        writer.write(number, rows_of(first, last), {"error": np.arange(first, last) / 100})
    writer.finish(IDS, {"source": "records"})
    return writer


@pytest.mark.parametrize("container", CONTAINERS)
def test_rows_come_back_in_any_order(tmp_path, container):
    write(tmp_path / "s", container)
    store = open_store(tmp_path / "s", IDENTITY)
    assert (len(store), store.records, store.views) == (100, 50, 2)
    wanted = np.array([99, 0, 31, 31, 60])
    found = store.read(wanted)
    for name, value in rows_of(0, 100).items():
        assert found[name].dtype == value.dtype
        np.testing.assert_array_equal(found[name], value[wanted])
    assert store.manifest["measures"]["error"] == {"mean": pytest.approx(0.495), "max": 0.99}
    np.testing.assert_array_equal(store.positions(["record/7", "record/0"]), [7, 0])
    assert store.verify() == []
    assert not list((tmp_path / "s").glob("*.part"))
    assert not list((tmp_path / "s").glob("*.whole.json"))


@pytest.mark.parametrize("container", CONTAINERS)
def test_a_writer_goes_on_behind_whole_parts(tmp_path, container):
    writer = write(tmp_path / "s", container, stop=2)
    assert writer.whole() == 2
    with pytest.raises(ValueError, match="is not finished"):
        open_store(tmp_path / "s")
    with pytest.raises(ValueError, match="lacks the part that begins with row 60"):
        writer.finish(IDS, {})
    before = {p.name: p.stat().st_mtime_ns for p in (tmp_path / "s").glob("000-*")}
    # What a writer that died in the middle of a part has left.
    (tmp_path / "s" / f"000-00002{CONTAINERS[container].suffix}.part").write_bytes(b"half")
    write(tmp_path / "s", container)
    store = open_store(tmp_path / "s")
    np.testing.assert_array_equal(store.read(np.arange(100))["value"], rows_of(0, 100)["value"])
    for name, time in before.items():
        if not name.endswith(".json"):
            assert (tmp_path / "s" / name).stat().st_mtime_ns == time


def test_a_store_of_something_else_is_refused_with_both_values(tmp_path):
    write(tmp_path / "s", stop=1)
    other = {**IDENTITY, "teachers": {"teacher": "xyz"}}
    with pytest.raises(ValueError, match=r"teachers\.teacher: 'abc' there, 'xyz' now"):
        begin(tmp_path / "s", other, LAYOUT, 100, container="npy", part_bytes=LAYOUT.width * 30)
    write(tmp_path / "s")
    with pytest.raises(ValueError, match=r"teachers\.teacher: 'abc' there, 'xyz' now"):
        open_store(tmp_path / "s", other)
    with pytest.raises(ValueError, match=r"tokenizer: 'absent' there, 't5' now"):
        open_store(tmp_path / "s", {"tokenizer": "t5"})
    assert len(open_store(tmp_path / "s", {"outputs": IDENTITY["outputs"]})) == 100


def the_part(path, container, number=1):
    found = path / f"000-{number:05d}{CONTAINERS[container].suffix}"
    return next(p for p in found.rglob("*") if p.parent.name == "0") if found.is_dir() else found


@pytest.mark.parametrize("container", CONTAINERS)
def test_a_flipped_byte_is_found_at_reading_and_by_verify(tmp_path, container):
    write(tmp_path / "s", container)
    part = the_part(tmp_path / "s", container)
    content = bytearray(part.read_bytes())
    content[len(content) // 2] ^= 1
    part.write_bytes(bytes(content))
    with pytest.raises(Damaged, match=f"000-00001{CONTAINERS[container].suffix} is damaged"):
        # Where the container cannot be read at all, it is found at opening.
        open_store(tmp_path / "s").read(np.arange(100))
    store = open_store(tmp_path / "s", damage="skip")
    assert store.read(np.arange(30))["small"][7] == 7
    assert store.verify() == [
        f"000-00001{CONTAINERS[container].suffix}: its checksum is not that of the manifest"
    ]
    rest = open_store(tmp_path / "s", damage="skip")
    assert rest.readable.sum() == 70
    np.testing.assert_array_equal(np.flatnonzero(~rest.readable), np.arange(30, 60))


@pytest.mark.parametrize("container", CONTAINERS)
@pytest.mark.parametrize("harm", ["truncated", "missing"])
def test_a_truncated_or_missing_file_is_named_at_opening(tmp_path, container, harm):
    write(tmp_path / "s", container)
    part = the_part(tmp_path / "s", container)
    if harm == "missing":
        top = tmp_path / "s" / f"000-00001{CONTAINERS[container].suffix}"
        shutil.rmtree(top) if top.is_dir() else top.unlink()
    else:
        part.write_bytes(part.read_bytes()[:-100])
    said = "missing" if harm == "missing" else "bytes, but"
    with pytest.raises(Damaged, match=f"000-00001{CONTAINERS[container].suffix}: .*{said}"):
        open_store(tmp_path / "s")
    rest = open_store(tmp_path / "s", damage="skip")
    assert rest.readable.sum() == 70
    assert rest.read(np.array([99]))["small"][0] == 99


@pytest.mark.parametrize("container", CONTAINERS)
def test_files_of_equal_size_in_each_others_place_are_refused_at_opening(tmp_path, container):
    write(tmp_path / "s", container)
    first, second = (tmp_path / "s" / f"000-0000{n}{CONTAINERS[container].suffix}" for n in (0, 1))
    first.rename(tmp_path / "kept")
    second.rename(first)
    (tmp_path / "kept").rename(second)
    with pytest.raises(Damaged, match=f"000-00000{CONTAINERS[container].suffix} is damaged: its"):
        open_store(tmp_path / "s")
    rest = open_store(tmp_path / "s", damage="skip")
    np.testing.assert_array_equal(np.flatnonzero(rest.readable), np.arange(60, 100))


def test_a_damaged_index_or_manifest_is_named(tmp_path):
    write(tmp_path / "s")
    (tmp_path / "s" / "ids.npy").unlink()
    with pytest.raises(Damaged, match=r"ids\.npy: missing"):
        open_store(tmp_path / "s", damage="skip")
    write(tmp_path / "t")
    index = bytearray((tmp_path / "t" / "ids.npy").read_bytes())
    index[-5] ^= 1
    (tmp_path / "t" / "ids.npy").write_bytes(bytes(index))
    with pytest.raises(Damaged, match=r"ids\.npy is damaged"):
        open_store(tmp_path / "t")
    (tmp_path / "s" / "manifest.json").write_text("{half")
    with pytest.raises(ValueError, match=r"manifest\.json is damaged"):
        open_store(tmp_path / "s")
    (tmp_path / "s" / "manifest.json").write_text(json.dumps({"format": 99}))
    with pytest.raises(ValueError, match="has format 99, this library 2"):
        open_store(tmp_path / "s")
    with pytest.raises(ValueError, match="is no store"):
        open_store(tmp_path / "nowhere")


@pytest.mark.parametrize("container", CONTAINERS)
def test_a_full_disk_leaves_a_store_that_can_be_written_on(tmp_path, container):
    writer = write(tmp_path / "s", container, stop=1)
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (600, hard))
    try:
        with pytest.raises(OSError, match="The 1 parts before it are whole: make room"):
            writer.write(1, rows_of(30, 60), {"error": np.zeros(30)})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert not list((tmp_path / "s").glob("*.part"))
    write(tmp_path / "s", container)
    store = open_store(tmp_path / "s")
    np.testing.assert_array_equal(store.read(np.arange(100))["small"], np.arange(100))


def test_every_process_writes_its_own_run_of_rows(tmp_path):
    for process in (1, 0):
        writer = begin(
            tmp_path / "s", IDENTITY, LAYOUT, 100, container="npy",
            part_bytes=LAYOUT.width * 30, shard=(process, 2),
        )  # fmt: skip
        for number, (first, last) in enumerate(writer.parts()):
            writer.write(number, rows_of(first, last), {"error": np.zeros(last - first)})
    writer.finish(IDS, {})
    store = open_store(tmp_path / "s")
    assert [file["rows"] for file in store.manifest["files"]] == [30, 20, 30, 20]
    np.testing.assert_array_equal(store.read(np.arange(100))["small"], np.arange(100))


def test_records_are_found_by_id_and_strangers_are_named(tmp_path):
    write(tmp_path / "s")
    store = open_store(tmp_path / "s")
    shuffled = np.random.default_rng(0).permutation(50)
    np.testing.assert_array_equal(store.positions([IDS[i] for i in shuffled]), shuffled)
    with pytest.raises(ValueError, match="no arrays of 1 of these 2 records, the first being 'x'"):
        store.positions(["record/3", "x"])


def test_bad_settings_are_refused(tmp_path):
    with pytest.raises(ValueError, match="did you mean 'npy'"):
        begin(tmp_path / "s", {}, LAYOUT, 5, container="npz")
    with pytest.raises(ValueError, match="at least one row"):
        begin(tmp_path / "s", {}, LAYOUT, 0)
    write(tmp_path / "s")
    with pytest.raises(ValueError, match="whole already"):
        begin(tmp_path / "s", IDENTITY, LAYOUT, 100, container="npy")
    with pytest.raises(IndexError, match="rows from 100 to 100"):
        open_store(tmp_path / "s").read(np.array([100]))
    with pytest.raises(ValueError, match="unknown way with damage"):
        open_store(tmp_path / "s", damage="ignore")  # type: ignore[arg-type]


def test_layouts_check_what_they_pack():
    good = rows_of(0, 4)
    rows = LAYOUT.pack(good)
    assert rows.shape == (4, LAYOUT.width) == (4, 16 + 24 + 2 + 4)
    assert not damaged(rows).any()
    rows[2, 20] ^= 4
    np.testing.assert_array_equal(damaged(rows), [False, False, True, False])
    with pytest.raises(ValueError, match="fields are"):
        LAYOUT.pack({"id": good["id"]})
    with pytest.raises(ValueError, match=r"field 'value' is float32\[2, 3\] a record"):
        LAYOUT.pack({**good, "value": good["value"].astype(np.float64)})
