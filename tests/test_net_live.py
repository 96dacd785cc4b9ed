"""Modules that somebody has trained become nets, and students modules again."""

import chex
import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import linen as nn
from flax import nnx
from flax.core import freeze

from jaxdistill import fit, losses, model_to_model, models, objective, targets
from jaxdistill.frameworks.equinox import from_equinox
from jaxdistill.frameworks.linen import from_linen
from jaxdistill.frameworks.nnx import from_nnx
from jaxdistill.net import Forward, Net, Trained, from_function, variables_of

KEY = jax.random.key(0)
X = jax.random.normal(jax.random.key(1), (6, 4))


class Linen(nn.Module):
    @nn.compact
    def __call__(self, x, train=False):
        x = nn.BatchNorm(not train, momentum=0.9)(nn.Dense(5)(x))
        return nn.Dense(3, name="head")(nn.Dropout(0.5, deterministic=not train)(x))


def nnx_model(rngs):
    return nnx.Sequential(
        nnx.Linear(4, 5, rngs=rngs),
        nnx.BatchNorm(5, rngs=rngs),
        nnx.Dropout(0.5, rngs=rngs),
        nnx.Linear(5, 3, rngs=rngs),
    )


def equinox_model(key):
    first, last = jax.random.split(key)
    return eqx.nn.Sequential(
        [
            eqx.nn.Linear(4, 5, key=first),
            eqx.nn.BatchNorm(5, "batch", mode="batch"),
            eqx.nn.Dropout(0.5),
            eqx.nn.MLP(5, 3, 8, 1, key=last),
        ]
    )


def linen():
    variables = Linen().init(KEY, X)
    moved = Linen().apply(variables, X, train=True, mutable=["batch_stats"], rngs={"dropout": KEY})[
        1
    ]
    variables = {**variables, **moved}
    return (
        from_linen(Linen(), variables),
        Linen().apply(variables, X),
        lambda v: Linen().apply(v, X),
    )


def with_nnx():
    model = nnx_model(nnx.Rngs(0))
    model(X)  # moves the statistics
    found = from_nnx(model)
    model.eval()
    return found, model(X), lambda model: model(X)


def equinox():
    model, state = eqx.nn.make_with_state(equinox_model)(KEY)

    def run(model, state):
        keys = jax.random.split(KEY, len(X))
        over = jax.vmap(
            lambda x, key: model(x, state, key=key), out_axes=(0, None), axis_name="batch"
        )
        return over(X, keys)

    state = run(model, state)[1]
    out = run(eqx.nn.inference_mode(model), state)[0]
    return from_equinox(model, state), out, lambda both: run(*both)[0]


LIVE = {"linen": linen, "nnx": with_nnx, "equinox": equinox}


@pytest.mark.parametrize("kind", LIVE)
def test_a_trained_module_answers_as_a_net_and_goes_back(kind):
    (net, variables), out, run = LIVE[kind]()
    assert isinstance(net, Net)
    forward = net.apply(*variables, X)
    np.testing.assert_allclose(forward.out, out, rtol=1e-5, atol=1e-6)
    chex.assert_trees_all_equal(forward.state, variables[1])
    chex.assert_trees_all_equal(net.init(jax.random.key(5), X), variables)

    def loss(params):
        forward = net.apply(params, variables[1], X, train=True, rng=KEY)
        return (forward.out**2).sum(), forward.state

    grads, state = jax.jit(jax.grad(loss, has_aux=True))(variables[0])
    params = jax.tree.map(lambda p, g: p - 0.1 * g, variables[0], grads)
    student = net.apply(params, state, X).out
    assert not np.allclose(student, out)
    # Ready to be used: nothing is dropped.
    np.testing.assert_allclose(run(net.back((params, state))), student, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    "net",
    [
        from_linen(Linen()),
        from_nnx(nnx_model),
        from_equinox(equinox_model),
        from_equinox(eqx.nn.make_with_state(equinox_model)),
    ],
)
def test_nets_of_builders_go_back_too(net):
    variables = net.init(KEY, X)
    assert net.back(variables) is not None
    params, state = variables
    with pytest.raises(TypeError, match=r"the result must be \(params, state\), and is a dict of"):
        net.back(params)
    if net.back.__module__ != "jaxdistill.frameworks.linen":
        with pytest.raises(ValueError, match="not those of this net: they lack"):
            net.back(({}, state))


def test_a_builder_may_make_the_state_itself():
    own = from_equinox(equinox_model).init(KEY, X)
    chex.assert_trees_all_equal(
        from_equinox(eqx.nn.make_with_state(equinox_model)).init(KEY, X), own
    )


def test_variables_that_a_module_lacks_are_named():
    net, variables = from_linen(Linen(), {"params": Linen().init(KEY, X)["params"]})
    with pytest.raises(ValueError, match=r"Linen reads more .*\['params'\]: .*batch_stats"):
        net.apply(*variables, X)


def test_modules_without_a_state_go_back_alone():
    model = eqx.nn.MLP(4, 3, 8, 1, key=KEY)
    # As read from a file.
    model = jax.tree.map(lambda x: np.asarray(x) if eqx.is_array(x) else x, model)
    net, variables = from_equinox(model)
    np.testing.assert_allclose(
        jax.vmap(net.back(variables))(X), net.apply(*variables, X).out, rtol=1e-6
    )
    net, variables = from_linen(nn.Dense(3), freeze(nn.Dense(3).init(KEY, X)))
    assert net.back(variables)["params"].keys() == {"kernel", "bias"}


def test_a_net_of_functions_has_no_module():
    net = from_function(lambda key, x: ({}, {}), lambda params, state, x, *, train, rng: x)
    with pytest.raises(TypeError, match="made from functions"):
        net.back(({}, {}))


def wrong():
    module, bound = nn.Dense(3), nn.Dense(3).bind(nn.Dense(3).init(KEY, X))
    variables = module.init(KEY, X)
    live, eqx_live = nnx_model(nnx.Rngs(0)), eqx.nn.MLP(4, 3, 8, 1, key=KEY)
    stateful, state = eqx.nn.make_with_state(equinox_model)(KEY)
    halves = eqx.partition(eqx_live, eqx.is_array)
    graphdef, graph = nnx.split(live)
    merge, combine = r"nnx.merge\(\*it\) gives the module", r"equinox.combine\(\*it\) gives"
    return [
        (lambda: from_linen(live, variables), "a Flax NNX module .from_nnx takes it"),
        (lambda: from_linen(nn.Dense, variables), "the class Dense"),
        (lambda: from_linen(bound), r"not bound: from_linen\(\*module.unbind\(\)\)"),
        (lambda: from_linen(module, variables["params"]), "not a dict of 'bias', 'kernel'"),
        (lambda: from_linen(module, (variables["params"], {})), r"a tuple of \(dict, dict\)"),
        (lambda: from_linen(module, graph), "State of an NNX module"),
        (lambda: from_nnx(module), "a Flax Linen module .from_linen takes it"),
        (lambda: from_nnx(eqx_live), "an Equinox module .from_equinox takes it"),
        (lambda: from_nnx(graph), r"State of an NNX module .nnx.merge\(graphdef, state\)"),
        (lambda: from_nnx(graphdef), r"GraphDef of an NNX module .nnx.merge\(graphdef, state\)"),
        (lambda: from_nnx((graphdef, graph)), r"a tuple of \(GraphDef, State\) ." + merge),
        (lambda: from_nnx(variables["params"]), "a dict of 'bias', 'kernel'"),
        (lambda: from_nnx(None), "not None"),
        (lambda: from_nnx(lambda rngs: nn.Dense(3)).init(KEY, X), "makes a Flax Linen module"),
        (lambda: from_equinox(live), "a Flax NNX module .from_nnx takes it"),
        (lambda: from_equinox((stateful, state)), r"from_equinox\(\*it\) takes both"),
        (lambda: from_equinox(halves), combine),
        (lambda: from_equinox(halves[0]), "'activation' is None: this is half of a model"),
        (lambda: from_equinox(halves[1]), "'layers/0/weight' is None: this is half of a model"),
        (lambda: from_equinox(stateful), r"that was not given: from_equinox\(model, state\)"),
        (lambda: from_equinox(stateful, {}), "must be an equinox.nn.State, not a dict of"),
        (lambda: from_equinox(state), r"from_equinox\(model, state\) takes it"),
        (lambda: from_equinox([1, 2]), r"a list of \(int, int\)"),
        (lambda: from_equinox(lambda key: nn.Dense(3)).init(KEY, X), "makes a Flax Linen module"),
    ]


@pytest.mark.parametrize(("call", "message"), wrong())
def test_wrong_things_are_named_with_what_to_call(call, message):
    with pytest.raises((TypeError, ValueError), match=message):
        call()


def given():
    net = from_linen(nn.Dense(3))
    variables = nn.Dense(3).init(KEY, X)
    return [
        (variables["params"], r"a dict of 'bias', 'kernel': .* give \(params, \{\}\)"),
        (variables, r"a dict of 'params': give \(variables\['params'\], \{the others\}\)"),
        (Trained(net, ({}, {})), r"a Trained: give its variables"),
        ((net, ({}, {})), "a tuple of .Net, tuple. .variables go beside it"),
        (None, "is None: a net's init gives them"),
        (nnx_model(nnx.Rngs(0)), "a Flax NNX module .from_nnx takes it"),
        (nnx.split(nnx_model(nnx.Rngs(0))), r"nnx.merge\(\*it\)"),
        (({}, {}, {}), r"a tuple of \(dict, dict, dict\)"),
        ((models.MLP(), variables), r"from_linen\(module, variables\) takes both"),
    ]


@pytest.mark.parametrize(("value", "message"), given())
def test_variables_are_a_pair(value, message):
    with pytest.raises(TypeError, match=rf"the teacher must be \(params, state\).*{message}"):
        variables_of("the teacher", value)


def test_pairs_pass_as_they_are():
    for pair in (({}, {}), [{"a": X}, {}], (X, {})):
        assert variables_of("it", pair) == tuple(pair)


@pytest.mark.parametrize(
    ("path", "hint"), [("out", "take features, by taps"), ("layer", "projector='linear'")]
)
def test_projectors_are_for_features_and_not_for_classes(path, hint):
    loss = losses.hinton_kd if path == "out" else losses.feature_match
    entry = objective.match(loss, name="it", student=path, target=path)
    here, there = ({"layer": jnp.zeros((4, width))} for width in (3, 5))
    forward = Forward(jnp.zeros((4, 3)), here, {}, {})
    with pytest.raises(ValueError, match=hint) as fault:
        entry.init(KEY, forward, {"out": jnp.zeros((4, 5)), **there}, {})
    assert ("projector" in str(fault.value)) == (path == "layer")


@pytest.mark.parametrize(
    ("student", "goal", "message"),
    [
        (from_linen(nn.Dense(3)), None, "targets must be a function .* not None"),
        (from_linen(nn.Dense(3)), {"out": X}, "targets must be a function .* not a dict of 'out'"),
        (from_linen(nn.Dense(3)), from_linen(nn.Dense(3)), "targets must be a function .* a Net"),
        (nnx_model(nnx.Rngs(0)), targets.labels(), "student must be .* NNX module .from_nnx takes"),
        (nn.Dense(3), targets.labels(), "student must be .* Linen module .from_linen takes"),
        (from_nnx(nnx_model(nnx.Rngs(0))), targets.labels(), "student must be .* a Trained"),
    ],
)
def test_a_distiller_says_what_it_was_given(student, goal, message):
    with pytest.raises(TypeError, match=message):
        model_to_model(student, goal, lambda *given: {}, optax.sgd(0.1))


def test_fit_says_what_a_teacher_is_made_of():
    net = from_linen(nn.Dense(3))
    variables = net.init(KEY, X)
    term = objective.match(losses.hinton_kd, name="kd")
    distiller = model_to_model(net, targets.live(net), term, optax.sgd(0.1))
    for given in (variables[0], {"params": variables[0]}):
        with pytest.raises(TypeError, match=r"'teacher'\]? must be \(params, state\)"):
            fit(distiller, {"teacher": given}, {"image": np.ones((8, 4), "f")}, 2, quiet=True)
