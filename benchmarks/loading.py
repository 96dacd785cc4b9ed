"""How much memory and time it takes to load published weights, and to look at a folder of images.

A checkpoint of random numbers in the form of a Llama decoder, about 500 MB in 5 shards, is written
to a temporary folder and loaded in two ways, each time in a process of its own: by
``jaxdistill.models.load``, and by ``safetensors.numpy.load_file`` file by file into one dict, which
is what one would write by hand.

Then a folder of 4,000 JPEG and PNG files is looked at as before a run: every header and end
(``Source.check``), and the bytes by which it is known again (``Source.fingerprint``); the limit is
2,000 files a second.

    python benchmarks/loading.py [--smoke]

Prints a table, then one JSON object. Peak memory is the most the process ever held beyond what it
held before (resident, sampled by the kernel), the arrays on the device included: on a CPU both are
the same memory. The limit is 1.3 times the largest shard plus the arrays themselves.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from _measure import finish, highest, parser, resident, table

LIMIT = 1.3
FILES_A_SECOND = 2000
SHARDS = 5
# name: width, depth, hidden, vocabulary
SIZES = {"whole": (1024, 8, 2816, 16_000), "smoke": (64, 2, 128, 512)}


def main() -> int:
    made = parser(__doc__, "a checkpoint of a few hundred kB")
    made.add_argument("--repeats", type=int, default=5)
    made.add_argument("--one", nargs=2, help=argparse.SUPPRESS)
    arguments = made.parse_args()
    if arguments.one:
        print(json.dumps(one(*arguments.one)))
        return 0
    with tempfile.TemporaryDirectory() as folder:
        sizes = write(Path(folder), SIZES["smoke" if arguments.smoke else "whole"])
        found: dict[str, list[dict[str, float]]] = {"load": [], "by hand": []}
        for _ in range(1 if arguments.smoke else arguments.repeats):
            for way, runs in found.items():
                # Each in a process of its own: memory once held is not given back.
                command = [sys.executable, __file__, "--one", way, folder]
                answer = subprocess.run(command, check=True, capture_output=True, text=True)
                runs.append(json.loads(answer.stdout.splitlines()[-1]))
    total, largest = sum(sizes), max(sizes)
    allowed = total + LIMIT * largest
    print(f"{total / 1e6:.0f} MB in {len(sizes)} shards, the largest {largest / 1e6:.0f} MB\n")
    results, rows = {}, []
    for way, runs in found.items():
        rate = sorted(total / run["seconds"] / 1e9 for run in runs)[len(runs) // 2]
        peak = max(run["peak"] for run in runs)
        extra = (peak - total) / largest
        results[way] = {"gigabytes_per_second": rate, "peak": peak, "shards_beyond": extra}
        rows.append((way, f"{rate:.2f}", f"{peak / 1e6:.0f}", f"{extra:.2f} shards"))
    print(table(("way", "GB/s, median", "peak, MB", "beyond the arrays"), rows), end="\n\n")
    sizes_of = {"bytes": total, "largest": largest, "shards": len(sizes), "limit": allowed}
    peak = results["load"]["peak"]
    missed = [f"peak {peak / 1e6:.0f} MB, at most {allowed / 1e6:.0f}"] if peak > allowed else []
    rates = looked(40 if arguments.smoke else 4000)
    rows = [(what, f"{rate:,.0f}") for what, rate in rates.items()]
    print(table(("folder of images", "files/s"), rows), end="\n\n")
    if not arguments.smoke and rates["headers"] < FILES_A_SECOND:
        missed.append(f"{rates['headers']:.0f} headers a second, at least {FILES_A_SECOND}")
    return finish("loading", arguments, {**sizes_of, **results, "files": rates}, missed)


def looked(count: int) -> dict[str, float]:
    """Files a second: headers, fingerprints, and both once more of files that have not changed."""
    import numpy as np
    from PIL import Image

    from jaxdistill.data import sources

    noise = np.random.default_rng(0).normal(size=(280, 280, 3)).cumsum(0).cumsum(1)
    pixels = ((noise - noise.min()) / np.ptp(noise) * 255).astype(np.uint8)
    with tempfile.TemporaryDirectory() as folder:
        os.environ["XDG_CACHE_HOME"] = f"{folder}/.cache"
        for number in range(count):
            path = Path(folder) / "ab"[number % 2] / f"{number}.{('jpg', 'png')[number % 2]}"
            path.parent.mkdir(exist_ok=True)
            Image.fromarray(np.roll(pixels, number, 0)[:224, :224]).save(path)
        source = sources.image_folder(folder, image_size=64)
        found = {}
        for again in ("", ", again"):
            for what, look in (("headers", source.check), ("fingerprint", source.fingerprint)):
                start = time.perf_counter()
                look()
                found[what + again] = count / (time.perf_counter() - start)
    return found


def write(folder: Path, size: tuple[int, int, int, int]) -> list[int]:
    """A decoder of random numbers in shards; the bytes of each."""
    import numpy as np
    from safetensors.numpy import save_file

    width, depth, hidden, vocabulary = size
    shapes = {
        "model.embed_tokens.weight": (vocabulary, width),
        "lm_head.weight": (vocabulary, width),
        "model.norm.weight": (width,),
    }
    for index in range(depth):
        layer = f"model.layers.{index}"
        for part in ("q_proj", "k_proj", "v_proj", "o_proj"):
            shapes[f"{layer}.self_attn.{part}.weight"] = (width, width)
        shapes[f"{layer}.mlp.gate_proj.weight"] = (hidden, width)
        shapes[f"{layer}.mlp.up_proj.weight"] = (hidden, width)
        shapes[f"{layer}.mlp.down_proj.weight"] = (width, hidden)
        for part in ("input_layernorm", "post_attention_layernorm"):
            shapes[f"{layer}.{part}.weight"] = (width,)
    generator = np.random.default_rng(0)
    files = [f"model-{i}.safetensors" for i in range(SHARDS)]
    sizes, where = [0] * SHARDS, {}
    # Into the smallest so far, the largest first, so that shards are of one size.
    for name in sorted(shapes, key=lambda name: -int(np.prod(shapes[name]))):
        shard = sizes.index(min(sizes))
        where[name] = files[shard]
        sizes[shard] += 4 * int(np.prod(shapes[name]))
    for file in files:
        held = {
            name: generator.standard_normal(shapes[name], np.float32)
            for name in shapes
            if where[name] == file
        }
        save_file(held, folder / file)
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": where}))
    config = {
        "architectures": ["LlamaForCausalLM"],
        "vocab_size": vocabulary,
        "hidden_size": width,
        "num_hidden_layers": depth,
        "num_attention_heads": 16,
        "intermediate_size": hidden,
    }
    (folder / "config.json").write_text(json.dumps(config))
    return sizes


def one(way: str, folder: str) -> dict[str, float]:
    """One load in this process: seconds, and the bytes held at most beyond those before."""
    import jax
    import safetensors.numpy

    from jaxdistill import models

    jax.block_until_ready(jax.numpy.zeros(1) + 1)
    before = resident()
    start = time.perf_counter()
    if way == "load":
        found = models.load(folder).params
    else:
        found = {}
        for file in sorted(Path(folder).glob("*.safetensors")):
            found |= safetensors.numpy.load_file(file)
    seconds = time.perf_counter() - start
    assert len(jax.tree.leaves(found)) > 10
    return {"seconds": seconds, "peak": highest() - before}


if __name__ == "__main__":
    sys.exit(main())
