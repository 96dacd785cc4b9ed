"""Metrics in plain words, and which of two values is the better one."""

from __future__ import annotations

import re
from typing import Literal, NamedTuple

Better = Literal["higher", "lower", ""]


class Meaning(NamedTuple):
    """What a metric says.

    Attributes:
        words: its name in words.
        better: which values are the better ones; empty where neither is, or nobody knows.
    """

    words: str
    better: Better


_UP, _DOWN, _NEITHER = "higher", "lower", ""
# By the end of a metric's name; what stands before it is whose it is: a teacher, a domain, an
# architecture. The longest end counts.
_ENDS: dict[str, tuple[str, Better]] = {
    # classifiers
    "accuracy": ("accuracy", _UP),
    "errors": ("errors", _DOWN),
    "nll": ("negative log-likelihood", _DOWN),
    "brier": ("Brier score", _DOWN),
    "ece": ("calibration error", _DOWN),
    "entropy": ("entropy", _NEITHER),
    "agreement": ("agreement with the teacher", _UP),
    "kl": ("KL divergence from the teacher", _DOWN),
    "class_errors": ("errors in the class left out", _DOWN),
    "bias_errors": ("errors, bias corrected", _DOWN),
    "bias_class_errors": ("errors in the class left out, bias corrected", _DOWN),
    "bias_offset": ("correction of the bias", _NEITHER),
    # features, scores, loyalty
    "probe_accuracy": ("linear probe accuracy", _UP),
    "knn_accuracy": ("nearest neighbours accuracy", _UP),
    "squared_error": ("squared error", _DOWN),
    "spearman": ("rank correlation", _UP),
    "spread": ("spread of features in a class", _NEITHER),
    "attention_distance": ("how far heads look, in patches", _NEITHER),
    "attention_spread": ("spread of how far heads look", _NEITHER),
    "attention_information": ("what attention knows of the place", _NEITHER),
    "attention_gap": ("how far attention is from the other net's", _DOWN),
    "precision": ("share of what is kept that is wanted", _UP),
    "base_rate": ("share of the pool that is wanted", _NEITHER),
    "lift": ("precision above the base rate", _UP),
    "kept": ("share of the pool that is kept", _NEITHER),
    "within_share": ("share of the features' variance in classes", _NEITHER),
    "loyalty": ("loyalty in probabilities", _UP),
    "label_loyalty": ("loyalty in labels", _UP),
    "probability_loyalty": ("loyalty in probabilities", _UP),
    "regression_loyalty": ("loyalty in scores", _UP),
    "rank_loyalty": ("loyalty in ranks", _UP),
    "absolute_gap": ("absolute difference of scores", _DOWN),
    "pearson": ("correlation with the labels", _UP),
    # data sets
    "accuracy_sd": ("deviation of accuracy over nets", _NEITHER),
    "accuracy_best": ("accuracy, best on the way", _UP),
    "kernel_accuracy": ("accuracy of kernel regression", _UP),
    "label_robust": ("label-robust score", _UP),
    "augmentation_robust": ("augmentation-robust score", _UP),
    "hard_recovery": ("accuracy lost against all data", _DOWN),
    "over_random": ("accuracy gained over a random set", _UP),
    "train_accuracy": ("accuracy on the training set", _UP),
    "fit_accuracy": ("accuracy of the fit", _UP),
    "sharpness": ("sharpness of the loss", _DOWN),
    "matching_error": ("distance from the experts, stretch by stretch", _DOWN),
    "accumulated_error": ("distance from the experts, accumulated", _DOWN),
    # samplers
    "kid": ("kernel distance (KID)", _DOWN),
    "kid_real": ("kernel distance (KID) of real data", _DOWN),
    "kid_teacher": ("kernel distance (KID) of the teacher", _DOWN),
    "fid": ("Fréchet distance (FID)", _DOWN),
    "fid_real": ("Fréchet distance (FID) of real data", _DOWN),
    "fid_teacher": ("Fréchet distance (FID) of the teacher", _DOWN),
    "fid_gain": ("share of FID that a second step takes away", _UP),
    "closed": ("share of the teacher's gap closed", _UP),
    "sliced_wasserstein": ("sliced Wasserstein distance", _DOWN),
    "kernel_distance": ("kernel distance", _DOWN),
    "mode_variation": ("difference of the modes' shares", _DOWN),
    "mode_quality": ("share of samples near a mode", _UP),
    "mode_share": ("share of samples in one mode", _NEITHER),
    "within_mode": ("spread in a mode, 1 being right", _NEITHER),
    "floor": ("distance of exact samples", _DOWN),
    "signal_error": ("distance from the exact way", _DOWN),
    "signal_growth": ("distance from the exact way, gained on it", _NEITHER),
    "two_step_gain": ("gain of a second step", _UP),
    "first": ("distance at the beginning of the way", _DOWN),
    "last": ("distance at the end of the way", _NEITHER),
    "least_rise": ("least rise of the distance along the way", _UP),
    "rise": ("rise of the distance by more steps", _DOWN),
    "guidance_left": ("share of guidance that one pass does not give", _DOWN),
    # language
    "loss": ("loss", _DOWN),
    "perplexity": ("perplexity", _DOWN),
    "acceptance": ("share of tokens accepted", _UP),
    "block_efficiency": ("tokens per call of the target", _UP),
    "expected_efficiency": ("tokens per call, expected", _UP),
    "formula_efficiency": ("tokens per call, by formula", _UP),
    "ratio": ("perplexity against the teacher's", _DOWN),
    "largest_ratio": ("largest perplexity against the teacher's", _DOWN),
    "mean_ratio": ("mean perplexity against the teacher's", _DOWN),
    # what steps measure
    "train_error": ("error on the training set", _DOWN),
    "moved": ("how far a step moves", _NEITHER),
    "gradient_norm": ("norm of the gradient", _NEITHER),
    "gradient": ("squared difference of teacher and estimate", _NEITHER),
    "fake": ("loss of the estimate", _NEITHER),
    "regression": ("squared distance from the teacher's samples", _DOWN),
    "sample_square": ("mean square of samples", _NEITHER),
    "tangent": ("squares of the tangent", _NEITHER),
    "step_flops": ("operations of a step", _DOWN),
}
_LONGEST_FIRST = sorted(_ENDS, key=len, reverse=True)


def meaning(name: str) -> Meaning:
    """The meaning of a metric, whose name may begin with where it was measured.

    Args:
        name: ``accuracy``, ``test/accuracy``, ``distil/test/teacher_accuracy``, ``kid_4``.

    Example:
        >>> meaning("distil/test/first_label_loyalty")
        Meaning(words='loyalty in labels (first)', better='higher')
        >>> meaning("kid_4").words, meaning("cka_middle").better, meaning("hint").better
        ('kernel distance (KID), 4 steps', 'higher', '')
    """
    own = name.rpartition("/")[2]
    if own.startswith("cka_"):
        return Meaning(f"similarity of features (CKA), {plain_words(own[4:])}", _UP)
    if head := re.fullmatch(r"attention_distance_(\d+)_(\d+)", own):
        return Meaning(f"how far head {head[2]} of block {head[1]} looks, in patches", _NEITHER)
    if best := re.fullmatch(r"(?:(\w+)_)?top(\d+)_accuracy", own):
        whose = f" ({plain_words(best[1])})" if best[1] else ""
        return Meaning(f"top-{best[2]} accuracy{whose}", _UP)
    for ending in _LONGEST_FIRST:
        found = re.fullmatch(rf"(?:(\w+?)_)?{ending}(?:_(\d+))?", own)
        if found:
            words, better = _ENDS[ending]
            if found[2]:
                words += f", {found[2]} step{'s' if found[2] != '1' else ''}"
            return Meaning(f"{words} ({plain_words(found[1])})" if found[1] else words, better)
    return Meaning(plain_words(own), _NEITHER)


def measured_on(name: str) -> str:
    """The meaning of ``<set>/<metric>`` or ``<stage>/<set>/<metric>`` with its set, in words.

    Example:
        >>> measured_on("distil/test/accuracy"), measured_on("validation/loss")
        ('accuracy, test', 'loss, validation')
    """
    where = name.split("/")[:-1]
    words = meaning(name).words
    return f"{words}, {plain_words(where[-1])}" if where else words


def plain_words(name: str) -> str:
    """A name as words.

    Example:
        >>> plain_words("without_threes")
        'without threes'
    """
    return name.replace("_", " ")
