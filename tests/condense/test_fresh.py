"""What a set is worth, and how it leaves the library."""

import jax.numpy as jnp
import numpy as np
import pytest
from sklearn.datasets import load_digits
from sklearn.linear_model import SGDClassifier

from jaxdistill import models, theory
from jaxdistill.condense import (
    Protocol,
    Synthetic,
    fit_whitening,
    fresh_nets,
    kernel_accuracy,
    label_robust_score,
    ranked,
    save_folder,
    save_npz,
)
from jaxdistill.data.sources import arrays, image_folder
from jaxdistill.data.stream import evaluation_batches
from jaxdistill.frameworks.linen import from_linen

DIGITS = load_digits()
PIXELS = np.round(DIGITS.images[..., None] / 16 * 255).astype(np.uint8)
LABELS = DIGITS.target.astype(np.int32)
TEST = evaluation_batches(arrays({"image": PIXELS[1500:], "label": LABELS[1500:]}), 100)
TRAIN = {"image": PIXELS[:1500] / np.float32(255), "label": LABELS[:1500]}


def means():
    """The mean image of each class: a set that is known to be good."""
    images = np.stack([TRAIN["image"][TRAIN["label"] == c].mean(0) for c in range(10)])
    return Synthetic(jnp.asarray(images), jnp.eye(10), jnp.asarray(0.05))


NETS = {
    "mlp": models.MLP(widths=(32,)),
    "convnet": models.ConvNet(width=4, depth=1),
    "resnet": models.cifar_resnet(depth=8),
    "vit": models.ViT(classes=10, patch=4, width=16, depth=1, heads=2),
}


@pytest.mark.parametrize("name", NETS)
def test_fresh_nets_of_any_architecture(name):
    net = from_linen(NETS[name])
    protocol = Protocol(steps=4, every=2, learning_rate=None, augment=["crop"])
    evaluate = fresh_nets(net, nets=2, protocol=protocol, name=name)
    values = evaluate(means(), {}, TEST)
    assert tuple(values) == evaluate.metrics
    assert set(values) == {f"{name}_{m}" for m in ("accuracy", "accuracy_sd", "accuracy_best")}
    assert values[f"{name}_accuracy_best"] >= values[f"{name}_accuracy"]
    assert values == evaluate(means(), {}, TEST)


def test_a_good_set_is_better_than_one_with_wrong_labels():
    protocol = Protocol(steps=100, learning_rate=0.1)
    evaluate = fresh_nets(from_linen(NETS["mlp"]), nets=2, protocol=protocol)
    good, set_ = evaluate(means(), {}, TEST), means()
    wrong = evaluate(set_._replace(targets=jnp.roll(set_.targets, 1, axis=0)), {}, TEST)
    assert good["accuracy"] > 0.6
    assert wrong["accuracy"] < 0.2


def test_losses_differ_as_they_should():
    net = from_linen(NETS["mlp"])
    soft = means()._replace(targets=jnp.full((10, 10), 0.1))

    def accuracy(found, **protocol):
        return fresh_nets(net, nets=1, protocol=Protocol(**protocol))(found, {}, TEST)["accuracy"]

    found = [accuracy(soft, steps=60, learning_rate=0.1, loss=loss) for loss in ("soft", "hard")]
    # Even targets teach nothing; their largest is always the first class.
    assert found[1] == pytest.approx((LABELS[1500:] == 0).mean())
    assert found[0] < 0.5
    assert accuracy(means(), steps=100, learning_rate=0.02, loss="squared") > 0.6
    # Neither momentum nor decay: plain steps.
    assert accuracy(means(), steps=100, learning_rate=0.1, momentum=0.0, weight_decay=0.0) > 0.6


def test_scores():
    net = from_linen(NETS["mlp"])
    protocol = Protocol(steps=40, learning_rate=0.1, augment=("crop",))
    evaluate = ranked(net, nets=1, full_steps=40, protocol=protocol)
    values = evaluate(means(), {"train": TRAIN}, TEST)
    assert tuple(values) == evaluate.metrics
    assert 0 <= values["label_robust"] <= 1
    expected = label_robust_score(values["hard_recovery"], values["over_random"])
    assert values["label_robust"] == expected
    with pytest.raises(ValueError, match=r"\[-1, 1\]"):
        label_robust_score(20.0, 30.0)


def test_kernel_accuracy():
    evaluate = kernel_accuracy(theory.ntk)
    values = evaluate(means(), {}, TEST)
    assert tuple(values) == evaluate.metrics
    assert values["kernel_accuracy"] > 0.6


def test_refusals():
    with pytest.raises(ValueError, match="'soft'"):
        Protocol(loss="sofft")
    for evaluator in (fresh_nets, ranked):
        with pytest.raises(ValueError, match="nets=0 must be a whole number, 1 or more"):
            evaluator(from_linen(NETS["mlp"]), nets=0)


def test_a_written_set_needs_nothing_of_the_library(tmp_path):
    whitening = fit_whitening(PIXELS[:1500], kind="absolute")
    white = means()._replace(images=jnp.asarray(whitening.apply(np.asarray(means().images))))
    path = save_npz(tmp_path / "set.npz", white, whitening)
    with np.load(path, allow_pickle=False) as file:
        archive = dict(file)
    # From here on numpy and scikit-learn alone.
    rows = archive["x"].reshape(len(archive["x"]), -1)
    model = SGDClassifier(loss="log_loss", random_state=0, max_iter=200).fit(rows, archive["y"])
    test = (PIXELS[1500:] / 255 - archive["channel_mean"]) / archive["channel_scale"]
    test = (test.reshape(len(test), -1) - archive["mean"]) @ archive["matrix"]
    assert model.score(test, LABELS[1500:]) > 0.6
    np.testing.assert_allclose(archive["pixels"] / 255, means().images, atol=0.01)
    assert not list(tmp_path.glob("*.part"))


def test_a_folder_of_images(tmp_path):
    save_folder(tmp_path / "set", means())
    source = image_folder(tmp_path / "set", image_size=8)
    found = source.gather(np.arange(10))
    np.testing.assert_array_equal(found["label"], np.arange(10))
    np.testing.assert_allclose(
        found["image"][..., :1] / 255, np.asarray(means().images), atol=0.003
    )
