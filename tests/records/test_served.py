"""A server that fails in every way: what is asked again, what is given up, what stops the run."""

import json
import logging
import threading
import time
from types import SimpleNamespace

import pytest
from loopback import loopback

from jaxdistill.records import Answers, Request, Sampling, ask, write
from jaxdistill.records import server as server_module
from jaxdistill.records.server import Server
from jaxdistill.records.teachers import replay, scripted, served

pytest.importorskip("httpx2")
KEY = "sk-very-secret-0123456789"


@pytest.fixture(autouse=True)
def straight(monkeypatch):
    """No proxy stands between the tests and their server."""
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")


def quick(server, **settings):
    settings = {"pause": 0.01, "timeout": 60.0, "retries": 2, **settings}
    return Server(server.url, "tiny", **settings)


def answers_of(teacher, *texts, **sampling):
    requests = [Request.of(text, sampling=Sampling(**sampling)) for text in texts]
    questions = [question for request in requests for question in request.questions()]
    return list(teacher.answer(questions))


PASSING = ["fault", "busy", "late", "drip", "cut", "json", "nan", "html", "hang_up", "bytes"]
PASSING += ["empty", "none"]


@pytest.mark.parametrize("word", PASSING)
def test_what_may_pass_is_asked_again(word):
    with loopback({"a": [word]}) as server:
        slow = {"timeout": 0.5, "retries": 20} if word in ("late", "drip") else {}
        (found,) = answers_of(served(quick(server, **slow)), "a")
        assert (found.text, found.finish) == ("answer to a", "stop")
        assert server.asked["a"] >= 2 if slow else server.asked["a"] == 2


@pytest.mark.parametrize(
    ("word", "said"),
    [
        ("fault", "out of order"),
        ("busy", "429"),
        ("cut", "RemoteProtocolError"),
        ("json", "no JSON"),
        ("html", "text/html"),
        ("none", "without text"),
    ],
)
def test_one_question_fails_and_the_others_do_not(word, said):
    with loopback({"a": [word] * 3}) as server:
        by_text = {each.question: each for each in answers_of(served(quick(server)), "a", "b")}
        failed = by_text[Request.of("a").questions()[0].id]
        assert failed.finish == "failed"
        assert said in failed.error
        assert "asked 3 times" in failed.error
        assert by_text[Request.of("b").questions()[0].id].text == "answer to b"


@pytest.mark.parametrize(("word", "said"), [("refuse", "too long"), ("filter", "content_filter")])
def test_what_cannot_become_better_is_asked_once(word, said):
    with loopback({"a": [word]}) as server:
        (found,) = answers_of(served(quick(server)), "a")
        assert found.finish == "failed"
        assert said in found.error
        assert server.asked["a"] == 1


def test_cut_answers_and_thinking():
    with loopback({"cut": ["length"], "sum": ["think"]}) as server:
        cut, thought = answers_of(served(quick(server, in_flight=1)), "cut", "sum")
        assert (cut.text, cut.finish) == ("answer to cut", "length")
        assert thought.text == "<think>\n2 and 3\n</think>\n\n5"


def test_most_probable_tokens():
    with loopback() as server:
        (found,) = answers_of(served(quick(server), top=2), "a")
        assert found.top.tokens == (5,)
        assert found.top.top == ((5, "b"),)
        assert found.top.logps == ((-0.1, -2.5),)


def test_what_is_sent():
    with loopback() as server:
        teacher = served(quick(server, in_flight=1), extra={"repetition_penalty": 1.1})
        answers_of(teacher, "a", n=2, temperature=0.5, max_tokens=7, stop=("\n",))
        first, second = server.bodies
        assert first["seed"] != second["seed"]
        assert {key: value for key, value in first.items() if key != "seed"} == {
            "model": "tiny",
            "messages": [{"role": "user", "content": "a"}],
            "temperature": 0.5,
            "top_p": 1.0,
            "max_tokens": 7,
            "stop": ["\n"],
            "repetition_penalty": 1.1,
        }


def test_so_many_are_under_way_and_no_more():
    with loopback(always="together") as server:
        answers_of(served(quick(server, in_flight=3)), *map(str, range(12)))
        assert server.most == 3


def test_an_answer_that_never_ends():
    with loopback(always="drip") as server:
        (found,) = answers_of(served(quick(server, timeout=0.3, retries=1)), "a")
        assert "no whole answer within 0.3 s (asked 2 times)" in found.error


@pytest.fixture
def slept(monkeypatch):
    """The pauses that were made, in seconds of a clock that only pauses move."""
    pauses, clock = [], [100.0]

    async def sleep(seconds):
        pauses.append(seconds)
        clock[0] += seconds

    stopped = SimpleNamespace(monotonic=lambda: clock[0], time=time.time)
    monkeypatch.setattr(server_module, "time", stopped)
    monkeypatch.setattr(server_module.asyncio, "sleep", sleep)
    return pauses


def test_a_rate_is_kept(slept):
    with loopback() as server:
        answers_of(served(quick(server, per_minute=30, in_flight=1)), *map(str, range(5)))
        assert slept == [2.0] * 4


def test_pauses_grow_and_differ(slept):
    with loopback({"a": ["fault"] * 4, "b": ["fault"]}) as server:
        answers_of(served(quick(server, pause=1.0, retries=5, in_flight=1)), "a", "b")
        assert len(slept) == 5
        assert all(2**n * 0.5 <= pause < 2**n * 1.5 for n, pause in enumerate(slept[:4]))
        assert slept[0] != slept[4]


@pytest.mark.parametrize("header", ["7", "date"])
def test_all_wait_when_the_server_asks_for_it(slept, header):
    with loopback({"0": ["busy"]}) as server:
        server.wait = header
        answers_of(served(quick(server, in_flight=1)), *map(str, range(3)))
        assert len(slept) == 1
        assert 5 < slept[0] <= 7


@pytest.mark.parametrize(
    ("word", "said"),
    [
        ("key", "does not take the key"),
        ("nowhere", "does not answer questions to model 'tiny'"),
        ("elsewhere", "give that as the server's url"),
    ],
)
def test_what_no_question_would_survive_stops_the_run(word, said):
    with loopback(always=word) as server:
        with pytest.raises(ValueError, match=said):
            answers_of(served(quick(server)), *map(str, range(50)))
        assert sum(server.asked.values()) < 50


def test_a_server_that_is_gone_stops_the_run():
    with loopback() as server:
        gone = quick(server, in_flight=2, retries=0, pause=0.001)
    with pytest.raises(ConnectionError, match="8 questions in a row"):
        answers_of(served(gone), *map(str, range(100)))


def test_who_leaves_does_not_wait():
    with loopback({"b": ["ok"]}, always="stuck") as server:
        questions = [q for text in "abc" for q in Request.of(text).questions()]
        given = served(quick(server)).answer(questions)
        assert next(given).text == "answer to b"
        given.close()
        assert not [each for each in threading.enumerate() if each.name == "ask"]
        assert server.under_way
        server.released.set()


def test_it_works_inside_of_a_running_loop():
    import asyncio

    with loopback() as server:

        async def cell():
            return answers_of(served(quick(server)), "a")

        assert asyncio.run(cell())[0].text == "answer to a"


# --- keys -----------------------------------------------------------------------------------------


def test_a_key_is_sent_and_is_nowhere_else(tmp_path, monkeypatch, caplog, capfd):
    caplog.set_level(logging.DEBUG)
    monkeypatch.setenv("TEST_KEY", KEY)
    with loopback({"b": ["fault"]}) as server:
        teacher = served(quick(server, key="TEST_KEY"))
        write([Request.of("a"), Request.of("b")], teacher, tmp_path / "set")
        assert server.headers[0]["Authorization"] == f"Bearer {KEY}"
        server.always = "key"
        with pytest.raises(ValueError, match="environment variable TEST_KEY") as refused:
            answers_of(teacher, "c")
    said = capfd.readouterr()
    written = [f.read_bytes().decode() for f in tmp_path.rglob("*") if f.is_file()]
    assert len(written) > 3
    everything = [*written, caplog.text, said.out, said.err, str(refused.value), repr(teacher)]
    assert not [text for text in everything if KEY in text]
    assert "[key]" in str(refused.value)


def test_a_key_that_is_not_there(monkeypatch):
    monkeypatch.delenv("TEST_KEY", raising=False)
    server = Server("http://127.0.0.1:1/v1", "tiny", key="TEST_KEY")
    with pytest.raises(ValueError, match="environment variable TEST_KEY, which is empty"):
        answers_of(served(server), "a")


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"key": KEY}, "never the key itself"),
        ({"url": f"http://me:{KEY}@host/v1"}, "keys come from the environment"),
        ({"url": f"https://host/v1?api_key={KEY}"}, "keys come from the environment"),
        ({"url": "host:8000"}, "no address"),
        ({"model": ""}, "name of a model"),
        ({"timeout": 0.0}, "timeout=0.0"),
        ({"in_flight": 0}, "in_flight=0"),
    ],
)
def test_bad_servers(settings, said):
    with pytest.raises(ValueError, match=said) as refused:
        Server(**{"url": "http://host/v1", "model": "tiny", **settings})
    assert KEY not in str(refused.value)


@pytest.mark.parametrize("extra", [{"messages": []}, {"api_key": KEY}, {"seed": 1}])
def test_bad_extras(extra):
    with pytest.raises(ValueError, match="extra"):
        served(Server("http://host/v1", "tiny"), extra=extra)


def test_what_changes_answers_changes_the_revision():
    server = Server("http://host/v1", "tiny")
    found = {
        served(server).revision,
        served(server, revision="b").revision,
        served(server, extra={"min_p": 0.1}).revision,
        served(server, top=3).revision,
        served(Server("http://host/v1", "other"), name="tiny").revision,
    }
    assert len(found) == 5
    elsewhere = Server("https://elsewhere/v1", "tiny", in_flight=2)
    assert served(elsewhere).revision == served(server).revision


# --- runs -----------------------------------------------------------------------------------------


def test_several_teachers_of_one_run(tmp_path):
    """Each record is its teacher's, and weighs as much; a second run asks nothing."""
    with loopback() as server:
        teachers = [
            served(quick(server), name="served"),
            scripted(lambda q: q.messages[-1].content.upper(), name="loud", revision="1"),
        ]
        requests = [
            Request.of(text, teacher=name, source=f"{name}/{text}")
            for text in ("a", "b")
            for name in ("served", "loud")
        ]
        found = write(requests, teachers, tmp_path / "set", weights={"loud": 0.25})
        by_teacher = {
            (each.provenance.teacher, each.answer): each.weight for each in found.records()
        }
        assert by_teacher == {
            ("served", "answer to a"): 1.0,
            ("served", "answer to b"): 1.0,
            ("loud", "A"): 0.25,
            ("loud", "B"): 0.25,
        }
        asked = sum(server.asked.values())
        again = write(
            requests, teachers, tmp_path / "again", weights={"loud": 0.25},
            answers=Answers(tmp_path / "set.answers"),
        )  # fmt: skip
        assert sum(server.asked.values()) == asked
        assert again.manifest["shards"] == found.manifest["shards"]


def test_a_run_that_was_stopped_goes_on(tmp_path):
    requests = [Request.of(str(number)) for number in range(6)]
    with loopback({"4": ["key"]}) as server:
        teacher = served(quick(server, in_flight=1))
        with pytest.raises(ValueError, match="does not take the key"):
            write(requests, teacher, tmp_path / "set")
        found = write(requests, teacher, tmp_path / "set")
        assert len(found) == 6
        assert max(server.asked.values()) == 2
        assert sum(server.asked.values()) == 7


def test_replay_asks_nobody(tmp_path):
    requests = [Request.of(str(number), sampling=Sampling(n=2)) for number in range(3)]
    with loopback() as server:
        live = write(requests, served(quick(server)), tmp_path / "live")
    again = write(requests, replay(tmp_path / "live.answers"), tmp_path / "again")
    assert again.manifest["shards"] == live.manifest["shards"]
    assert again.manifest["made_from"] == live.manifest["made_from"]
    lines = b"".join(f.read_bytes() for f in (tmp_path / "live.answers").rglob("*.jsonl"))
    (tmp_path / "one.jsonl").write_bytes(lines)
    teacher = replay(tmp_path / "one.jsonl")
    assert ask(teacher, requests[0].questions(), Answers()) == []
    (unknown,) = ask(teacher, Request.of("new").questions(), Answers())
    assert "not among" in unknown.error


def test_replay_of_several(tmp_path):
    answers = Answers(tmp_path / "answers")
    question = Request.of("a").questions()
    for name, revision in (("b", "1"), ("c", "1"), ("c", "2")):
        ask(scripted(lambda q: "x", name=name, revision=revision), question, answers)
    with pytest.raises(ValueError, match="there are several, name one of 'b', 'c'"):
        replay(tmp_path / "answers")
    with pytest.raises(ValueError, match="revision of 'c'"):
        replay(tmp_path / "answers", teacher="c")
    with pytest.raises(ValueError, match="unknown teacher"):
        replay(tmp_path / "answers", teacher="d")
    assert replay(tmp_path / "answers", teacher="c", revision="2").revision == "2"
    with pytest.raises(FileNotFoundError, match="no answers"):
        replay(tmp_path / "nothing")
    (tmp_path / "bad.jsonl").write_text(json.dumps({"question": "a"}) + "\n")
    with pytest.raises(ValueError, match=r"line 1 of .*bad.jsonl: .*needs"):
        replay(tmp_path / "bad.jsonl")
