"""Eight devices as ``data=4, fsdp=2`` against one; meshes, batches and rules that do not fit."""

import dataclasses

import jax
import numpy as np
import optax
import pytest

from jaxdistill import adapt, models, targets
from jaxdistill.data import sources, views
from jaxdistill.data.stream import stream
from jaxdistill.distiller import model_to_model
from jaxdistill.frameworks.linen import from_linen
from jaxdistill.losses import feature_match
from jaxdistill.objective import combine, match
from jaxdistill.training.loop import Stage, run_stage
from jaxdistill.training.sharding import make_mesh, path_name, shardings

DECODER = {"decoder_width": 16, "decoder_depth": 1, "decoder_heads": 2}
TEACHER = from_linen(models.MAE(patch=2, width=32, depth=2, heads=2, **DECODER))
STUDENT = from_linen(models.MAE(patch=2, width=16, depth=1, heads=2, **DECODER))
TAP = "encoder/block_0"
# One list for the student, the teacher, the projector, and the moments of the optimizer.
RULES = (
    (r"(qkv|fc1|feature)/kernel$", (None, "fsdp")),
    (r"(proj|fc2)/kernel$", ("fsdp", None)),
    (r"", "replicated"),
)


@pytest.fixture(scope="module")
def dmae():
    """DMAE in small: pixels of hidden patches, projected features of the visible ones."""
    source = sources.digits()
    pixels = match(
        feature_match,
        name="pixels",
        student="out/pixels",
        target="batch/patches",
        where="batch/mask",
    )
    feature = match(
        feature_match,
        name="feature",
        student=TAP,
        target=TAP,
        weight=3.0,
        projector=adapt.linear,
        normalise="l2",
        distance="l1",
    )
    distiller = model_to_model(
        STUDENT,
        targets.live(TEACHER, inputs="teacher", taps=(TAP,)),
        combine({"pixels": pixels, "feature": feature}),
        optax.adamw(1e-3, weight_decay=0.05),
        inputs="student",
        taps=(TAP,),
        prepare=views.chain(views.augmented(), views.masked(patch=2, ratio=0.75)),
    )
    # The whole state as the result, so that its places can be looked at.
    distiller = distiller._replace(result=lambda state: state)
    teacher = jax.jit(TEACHER.init)(jax.random.key(1), source.gather(np.arange(2))["image"])
    data = stream(source, 32, seed=0, threads=0)
    return Stage("dmae", distiller, data, 20, {"teacher": teacher}, log_every=1)


def shards(tree, pattern):
    """The whole shape and those of the pieces, of every array whose path ends in the pattern."""
    return {
        path_name(path): (leaf.shape, {piece.data.shape for piece in leaf.addressable_shards})
        for path, leaf in jax.tree_util.tree_leaves_with_path(tree)
        if path_name(path).endswith(pattern)
    }


def test_eight_devices_give_the_losses_of_one_with_state_really_sharded(dmae):
    seen = {}

    def placed(result, frozen, plan):
        seen["teacher"] = shards(frozen, "qkv/kernel")
        return plan

    one = run_stage(dmae, mesh=make_mesh({"data": 1}, jax.devices()[:1]), quiet=True)
    mesh = make_mesh({"data": 4, "fsdp": 2})
    many = run_stage(
        dataclasses.replace(dmae, between=(20, placed)), mesh=mesh, rules=RULES, quiet=True
    )

    assert [line["step"] for line in many.metrics] == list(range(1, 21))
    for name in ("loss", "pixels", "feature"):
        ours, theirs = ([line[name] for line in run.metrics] for run in (many, one))
        np.testing.assert_allclose(ours, theirs, rtol=1e-5, err_msg=name)
        assert ours[-1] < 0.9 * ours[0]

    state = many.result
    columns = shards(state, "qkv/kernel")
    assert sum(name.startswith("params/") for name in columns) == 2
    assert sum("/mu/" in name for name in columns) == 2
    assert sum("/nu/" in name for name in columns) == 2
    for (rows, width), pieces in columns.values():
        assert pieces == {(rows, width // 2)}
    for (rows, width), pieces in shards(state, "fc2/kernel").values():
        assert pieces == {(rows // 2, width)}
    projector = shards(state, "feature/kernel")
    assert len(projector) == 3
    assert set(map(str, projector.values())) == {"((16, 32), {(16, 16)})"}
    assert set(map(str, seen["teacher"].values())) == {
        "((32, 96), {(32, 48)})",
        "((16, 48), {(16, 24)})",
    }
    for whole, pieces in shards(state, "bias").values():
        assert pieces == {whole}
    # What is sliced over fsdp is copied over data: each device holds half of it.
    kernel = state.params["net"]["encoder"]["block_0"]["mlp"]["fc1"]["kernel"]
    assert len(kernel.addressable_shards) == 8
    assert sum(piece.data.nbytes for piece in kernel.addressable_shards) == 4 * kernel.nbytes


def test_without_rules_large_arrays_are_sliced_along_their_largest_side_that_divides():
    mesh = make_mesh({"data": 4, "fsdp": 2})
    shapes = {
        "wide": (64, 512),
        "tall": (513, 64),
        "odd": (129, 131),
        "small": (8, 8),
        "scalar": (),
    }
    tree = {name: jax.ShapeDtypeStruct(shape, "float32") for name, shape in shapes.items()}
    found = {name: tuple(sharding.spec) for name, sharding in shardings(mesh, tree).items()}
    assert found == {
        "wide": (None, "fsdp"),
        "tall": (None, "fsdp"),
        "odd": (),
        "small": (),
        "scalar": (),
    }


def test_the_first_rule_that_matches_counts():
    mesh = make_mesh({"data": 2, "fsdp": 2, "model": 2})
    tree = {"head": {"kernel": jax.ShapeDtypeStruct((8, 16), "float32")}}
    rules = [("head", (("fsdp", "model"), None)), ("kernel", "replicated")]
    assert shardings(mesh, tree, rules)["head"]["kernel"].shard_shape((8, 16)) == (2, 16)
    assert shardings(mesh, tree, rules[::-1])["head"]["kernel"].shard_shape((8, 16)) == (8, 16)


@pytest.mark.parametrize(
    ("sizes", "message"),
    [
        ({"data": 4, "fsdp": 4}, "needs 16 devices, there are 8"),
        ({"data": 16}, "needs 16 devices, there are 8"),
        ({"data": -1, "fsdp": 3}, "8 devices cannot be shared out"),
        ({"data": -1, "fsdp": -1}, "at most one of them -1"),
        ({"data": 0}, "must be positive"),
        ({"fsdq": 2}, "unknown mesh axis 'fsdq': did you mean 'fsdp'"),
    ],
)
def test_meshes_that_there_are_no_devices_for_are_refused(sizes, message):
    with pytest.raises(ValueError, match=message):
        make_mesh(sizes)


def test_a_mesh_takes_what_devices_are_left():
    assert dict(make_mesh().shape) == {"data": 8, "fsdp": 1, "model": 1}
    assert dict(make_mesh({"fsdp": 2}).shape) == {"data": 4, "fsdp": 2, "model": 1}
    assert dict(make_mesh({"data": 2, "fsdp": -1}).shape) == {"data": 2, "fsdp": 4, "model": 1}


def test_a_batch_that_the_mesh_does_not_divide_is_refused_before_anything_runs(dmae, tmp_path):
    stage = dataclasses.replace(dmae, data=stream(sources.digits(), 12, seed=0, threads=0))
    with pytest.raises(ValueError, match=r"12 examples cannot be shared out over 8 devices"):
        run_stage(stage, tmp_path, mesh=make_mesh({"data": 4, "fsdp": 2}), quiet=True)
    assert not any(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("rule", "message"),
    [
        (("kernel$", ("fsdq", None)), "unknown mesh axis 'fsdq': did you mean 'fsdp'"),
        (("kernel$", "fsdq"), "unknown partition 'fsdq': did you mean 'fsdp'"),
        (("kernel$", (None, None, "fsdp")), r"more dimensions than .*kernel \(\d+, \d+\)"),
        (("pred/kernel$", ("data", ("fsdp", "model"), None)), "more dimensions than"),
        (("mask_token$", ("fsdp",)), r"mask_token \(1, 1, 16\): dimension 1 cannot be cut into 2"),
        (("kernel[$", ("fsdp",)), r"rule 'kernel\[\$' is no regular expression"),
        (("kernel$",), r"rule \('kernel\$',\) is no pair"),
    ],
)
def test_bad_rules_are_refused(dmae, rule, message):
    with pytest.raises(ValueError, match=message):
        run_stage(dmae, mesh=make_mesh({"data": 4, "fsdp": 2}), rules=[rule], quiet=True)
