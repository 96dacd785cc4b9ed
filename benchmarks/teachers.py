"""What teachers and the way to a student cost: waiting for a server, tokens written, tokens read.

    python benchmarks/teachers.py
    python benchmarks/teachers.py --smoke   # small sizes, no target is checked

- A server on the loopback that takes 100 ms for an answer, asked with 16 questions in flight: the
  share of the time in which all sixteen wait for it, the rest being what our side takes of the
  processor (target: at least 0.7), and by the wall's clock, which counts whatever else runs.
- Tokens a second of `language.decoder_teacher`, beside `language.generate` of the same batches
  alone (target: at least 0.7 of it).
- Conversations a second and characters a second into tokens with what is learnt, on one thread.

Prints a table and, as its last line, JSON; exits with 1 when a target is missed.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from typing import Any

import jax
import jax.numpy as jnp
from _measure import finish, in_turn, median_ms, parser, ratio, table

from jaxdistill.data.tokenizers import byte_tokenizer
from jaxdistill.frameworks.linen import from_linen
from jaxdistill.language import Sampling, decoder_teacher, generate
from jaxdistill.models import Decoder
from jaxdistill.records import Message, Request, Server, chat, chatml, plain, served
from jaxdistill.records import Sampling as Drawn

SECONDS, IN_FLIGHT = 0.1, 16
WAITING, WRITING = 0.7, 0.7
# A server that answers after a while, in a process of its own.
STAND_IN = """
import asyncio, json, sys
SAID = json.dumps({"choices": [{"message": {"content": "5"}, "finish_reason": "stop"}]})
async def answer(reader, writer):
    try:
        while True:
            head = await reader.readuntil(b"\\r\\n\\r\\n")
            size = head.decode().lower().split("content-length:")[1].split("\\r\\n")[0]
            await reader.readexactly(int(size))
            await asyncio.sleep(float(sys.argv[1]))
            kind = f"Content-Type: application/json\\r\\nContent-Length: {len(SAID)}"
            writer.write(f"HTTP/1.1 200 OK\\r\\n{kind}\\r\\n\\r\\n{SAID}".encode())
    except (asyncio.IncompleteReadError, ConnectionError):
        writer.close()
async def main():
    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()
asyncio.run(main())
"""


def waiting(count: int) -> dict[str, float]:
    """The share of time in which all questions in flight wait for the server, by the wall's clock
    and as it would be if nothing else ran."""
    command = [sys.executable, "-c", STAND_IN, str(SECONDS)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            port = int(process.stdout.readline())
            server = Server(f"http://127.0.0.1:{port}/v1", "stand-in", in_flight=IN_FLIGHT)
            asked = [Request.of(f"{n}").questions()[0] for n in range(count)]
            begun, own = time.perf_counter(), time.process_time()
            answers = list(served(server).answer(asked))
            taken, own = time.perf_counter() - begun, time.process_time() - own
        finally:
            process.terminate()
    if wrong := [each.error for each in answers if each.finish != "stop"]:
        raise RuntimeError(f"{len(wrong)} of {count} questions failed: {wrong[0]}")
    least = count * SECONDS / IN_FLIGHT
    found = {"of_the_wall": least / taken, "share": least / (least + own)}
    return {**found, "processor_ms_a_question": 1e3 * own / count}


def writing(new: int, rows: int, repeats: int) -> dict[str, Any]:
    """Tokens a second of a decoder as a teacher, and of what it is made of alone."""
    net = from_linen(Decoder(vocabulary=257, width=256, depth=4, heads=4))
    variables = net.init(jax.random.key(0), jnp.zeros((1, 1), int))
    own = chat(byte_tokenizer(), plain())
    teacher = decoder_teacher(net, variables, own, name="t", context=256, batch_size=rows)
    drawn = Drawn(max_tokens=new, n=rows)
    questions = Request.of("What is two and three?", sampling=drawn).questions()
    prompt = jnp.asarray(own.prompt(questions[0].messages))
    prompts = jnp.zeros((rows, 32), int).at[:, : len(prompt)].set(prompt)
    lengths = jnp.full(rows, len(prompt))

    def alone(variables: Any, prompts: jax.Array, lengths: jax.Array, key: jax.Array) -> Any:
        return generate(
            net, variables, prompts, lengths, key, new=new, sampling=Sampling(), stop=own.ends
        )

    program = jax.jit(alone)
    times = in_turn(
        {
            "teacher": lambda: list(teacher.answer(questions)) and None,
            "generate": lambda: program(variables, prompts, lengths, jax.random.key(1)).lengths,
        },
        repeats,
    )
    found = ratio(times, "generate", "teacher")
    return {"tokens_a_second": 1e3 * rows * new / median_ms(times["teacher"]), **found}


def reading(count: int) -> dict[str, float]:
    """Conversations into tokens."""
    own = chat(byte_tokenizer(), chatml())
    said = (
        Message("user", "How many legs has a spider? " * 8),
        Message("assistant", "A spider has eight legs. " * 16, learn=True),
    )
    own.encode(said)
    begun = time.process_time()
    for _ in range(count):
        own.encode(said)
    taken = time.process_time() - begun
    size = sum(len(each.content) for each in said)
    return {"a_second": count / taken, "characters_a_second": count * size / taken}


def main() -> int:
    options = parser(__doc__).parse_args()
    small = options.smoke
    asked = waiting(32 if small else 640)
    written = writing(4 if small else 64, 4 if small else 16, 1 if small else 7)
    read = reading(20 if small else 2000)
    rows = [
        ("share of time that 16 in flight wait", f"{asked['share']:.2f}", f"{WAITING}"),
        ("the same by the wall's clock", f"{asked['of_the_wall']:.2f}", ""),
        ("ms of the processor a question", f"{asked['processor_ms_a_question']:.2f}", ""),
        ("tokens a second of a teacher", f"{written['tokens_a_second']:,.0f}", ""),
        ("of generate alone", f"{written['ratio']:.2f}", f"{WRITING}"),
        ("conversations a second into tokens", f"{read['a_second']:,.0f}", ""),
        ("characters a second into tokens", f"{read['characters_a_second']:,.0f}", ""),
    ]
    print(table(("what", "measured", "target"), rows))
    missed = []
    if asked["share"] < WAITING:
        missed.append(f"questions wait for the server {asked['share']:.2f} of the time")
    if written["ratio"] < WRITING:
        missed.append(f"a teacher writes at {written['ratio']:.2f} of what generate does")
    found = {"waiting": asked, "writing": written, "reading": read}
    return finish("teachers", options, json.loads(json.dumps(found)), missed)


if __name__ == "__main__":
    sys.exit(main())
