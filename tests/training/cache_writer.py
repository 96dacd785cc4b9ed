"""Writes a cache slowly enough to be killed: run by test_caches.py as a process of its own."""

import sys
import time

import jax
import numpy as np

from jaxdistill import targets
from jaxdistill.data import sources
from jaxdistill.models import MLP
from jaxdistill.net import from_linen
from jaxdistill.store import writer
from jaxdistill.training import caches

WHOLE = writer.Unfinished.write


def slow(self, *args):
    time.sleep(0.1)
    WHOLE(self, *args)


def main(folder):
    net = from_linen(MLP(widths=(32, 16)))
    digits = sources.digits()
    variables = net.init(jax.random.key(0), digits.gather(np.arange(2))["image"])
    cache = caches.Cache(
        digits,
        targets.live(net, inputs="teacher"),
        {"teacher": variables},
        {"out": {"codec": "dense"}},
        views=3,
    )
    writer.Unfinished.write = slow
    caches.write(cache, folder, quiet=True, batch_size=64, part_bytes=15_000)


if __name__ == "__main__":
    main(sys.argv[1])
