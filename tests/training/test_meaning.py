"""Metrics have plain names, and arrows that point where values are better."""

import jax.numpy as jnp
import pytest
from flax import linen as nn

from jaxdistill import condense, evaluation, language, registry, samplers, search
from jaxdistill.frameworks.linen import from_linen
from jaxdistill.language import domains
from jaxdistill.net import from_function
from jaxdistill.samplers import agreement, quality
from jaxdistill.training import _page
from jaxdistill.training.meaning import meaning

NET = from_function(lambda key, x: ({}, {}), lambda p, s, x, train, rng: (x, {}, s))
CLASSIFIER = from_linen(nn.Dense(2))
# Every evaluator as a config could ask for it, and what of it is better low, or neither; all else
# is better high.
BATCH = [{"image": jnp.zeros((1, 2)), "label": jnp.zeros(1, int)}]
EVALUATORS = {
    "classification": (
        lambda: evaluation.classification(NET, NET, "teacher", top=(1, 5)),
        "errors nll brier ece kl teacher_errors teacher_nll teacher_brier teacher_ece",
        "entropy teacher_entropy",
    ),
    "class_bias": (
        lambda: evaluation.class_bias(NET, BATCH, classes=(1,)),
        "bias_errors bias_class_errors class_errors",
        "bias_offset",
    ),
    "linear_probe": (lambda: evaluation.linear_probe(NET, BATCH, 0), "", ""),
    "nearest_neighbours": (lambda: evaluation.nearest_neighbours(NET, BATCH), "", ""),
    "cka": (lambda: evaluation.cka(NET, NET, pairs={"late": ("out", "out")}), "", ""),
    "attention": (
        lambda: evaluation.attention(NET, NET, "t", blocks=["qkv"], heads=2),
        "attention_gap",
        "attention_distance attention_spread attention_information attention_distance_0_0 "
        "attention_distance_0_1",
    ),
    "class_spread": (lambda: evaluation.class_spread(NET), "", "spread within_share"),
    "selection_precision": (
        lambda: search.selection_precision(NET, NET, "t", ["a", "b"], wanted=["a"]),
        "",
        "base_rate kept",
    ),
    "squared_error": (lambda: evaluation.squared_error(NET, 3), "squared_error", ""),
    "correlation": (lambda: evaluation.correlation(NET), "", ""),
    "loyalty": (
        lambda: evaluation.loyalty(NET, {"a": NET, "b": NET}, scores=True),
        "absolute_gap a_absolute_gap b_absolute_gap",
        "",
    ),
    "fresh_nets": (lambda: condense.fresh_nets(NET, name="mlp"), "", "mlp_accuracy_sd"),
    "ranked": (lambda: condense.ranked(NET), "hard_recovery", ""),
    "kernel_accuracy": (lambda: condense.kernel_accuracy(lambda x, y: x @ y.T), "", ""),
    "sharpness": (lambda: condense.sharpness(CLASSIFIER, (2, 2, 1)), "sharpness", ""),
    "strayed": (
        lambda: condense.strayed(
            CLASSIFIER,
            (2, 2, 1),
            students=condense.Students(steps=1, batch_size=1),
            epochs=1,
            window=condense.Window(1, 2),
        ),
        "matching_error accumulated_error",
        "",
    ),
    "density_quality": (
        lambda: quality.density_quality(NET, samplers.ring(), in_steps=(1, 2, 4)),
        "rise floor sliced_wasserstein_1 sliced_wasserstein_2 sliced_wasserstein_4 "
        "kernel_distance_1 kernel_distance_2 kernel_distance_4 "
        "mode_variation_1 mode_variation_2 mode_variation_4",
        "within_mode_1 within_mode_2 within_mode_4",
    ),
    "path_quality": (
        lambda: samplers.path_quality(NET, samplers.ring()),
        "first",
        "last",
    ),
    "signal_error": (
        lambda: quality.signal_error(NET, samplers.ring()),
        "early_signal_error middle_signal_error last_signal_error",
        "signal_growth",
    ),
    "image_quality": (
        lambda: quality.image_quality(
            NET, ("c", NET), BATCH, against=("t", NET, (1, 18)), read="out", fid=True
        ),
        "kid_real kid_1 kid_2 kid_teacher_1 kid_teacher_18 "
        "fid_real fid_1 fid_2 fid_teacher_1 fid_teacher_18",
        "",
    ),
    "guidance_left": (
        lambda: agreement.guidance_left(NET, None, scales=(1.0, 5.0)),
        "guidance_left",
        "",
    ),
    "next_token": (lambda: language.next_token(NET, ("code",)), "loss perplexity code_loss", ""),
    "drafting": (
        lambda: language.drafting(NET, NET, "t", prompt=2, new=2, block=2, prefix="greedy_"),
        "",
        "",
    ),
    "domain_gap": (
        lambda: domains.domain_gap(NET, NET, "t", ("code",)),
        "code_ratio largest_ratio mean_ratio",
        "",
    ),
}


def test_every_evaluator_is_listed():
    # What these measure is named by the score or the play that a config gives them.
    others = {"answered", "conversed"}
    assert EVALUATORS.keys() | others == registry.evaluators.EVALUATORS.keys()


@pytest.mark.parametrize("name", EVALUATORS)
def test_arrows_point_where_values_are_better(name):
    make, low, neither = EVALUATORS[name]
    metrics = make().metrics
    assert {*low.split(), *neither.split()} <= set(metrics)
    for metric in metrics:
        wanted = "lower" if metric in low.split() else "" if metric in neither.split() else "higher"
        for where in ("", "test/", "distil/test/"):
            found = meaning(where + metric)
            assert found.better == wanted, metric
            # A plain name is no identifier.
            assert "_" not in found.words
    assert _page.better("higher").count("↑") == _page.better("lower").count("↓") == 1
