"""A small server on the loopback that speaks the protocol of OpenAI, and fails as it is told."""

import contextlib
import email.utils
import json
import threading
import time
from collections import Counter
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


class Loopback(ThreadingHTTPServer):
    """Answers ``answer to <question>``.

    ``plan`` maps a question's last message to what becomes of it, one word a try; ``always`` is
    what becomes of it otherwise.
    """

    daemon_threads = True
    request_queue_size = 64

    def __init__(self, plan=None, always="ok"):
        super().__init__(("127.0.0.1", 0), _Handler)
        self.plan = {key: list(words) for key, words in (plan or {}).items()}
        self.always = always
        self.asked = Counter()
        self.bodies, self.headers = [], []
        self.under_way = self.most = 0
        self.lock = threading.Lock()
        self.wait = "0.02"
        self.three = threading.Barrier(3)
        self.released = threading.Event()
        self.score = None

    @property
    def url(self):
        return f"http://127.0.0.1:{self.server_address[1]}/v1"

    def handle_error(self, request, client_address):
        pass  # clients that leave


@contextlib.contextmanager
def loopback(plan=None, always="ok"):
    server = Loopback(plan, always)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *_):
        pass

    def do_POST(self):
        server = self.server
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        question = body["messages"][-1]["content"] if "messages" in body else "score"
        with server.lock:
            server.asked[question] += 1
            server.bodies.append(body)
            server.headers.append(dict(self.headers))
            server.under_way += 1
            server.most = max(server.most, server.under_way)
            words = server.plan.get(question, [])
            word = words.pop(0) if words else server.always
        try:
            getattr(self, f"_{word}")(body, question)
        finally:
            with server.lock:
                server.under_way -= 1

    def _send(self, status, text, kind="application/json", claimed=None, **headers):
        data = text.encode()
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(claimed or len(data)))
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        self.wfile.write(data)

    def _data(self, body, question, **changes):
        if "messages" not in body:
            return self.server.score(body)
        choice = {
            "message": {"role": "assistant", "content": f"answer to {question}"},
            "finish_reason": "stop",
        }
        if body.get("logprobs"):
            best = [{"token": "token_id:5", "logprob": -0.1}, {"token": "b", "logprob": -2.5}]
            choice["logprobs"] = {"content": [{"token": "token_id:5", "top_logprobs": best}]}
        return {"choices": [choice | changes]}

    def _ok(self, body, question):
        self._send(200, json.dumps(self._data(body, question)))

    def _together(self, body, question):
        self.server.three.wait(30)
        self._ok(body, question)

    def _stuck(self, body, question):
        self.server.released.wait(30)

    def _fault(self, body, question):
        self._send(500, json.dumps({"error": {"message": "out of order"}}))

    def _busy(self, body, question):
        wait = self.server.wait
        if wait == "date":
            wait = email.utils.formatdate(time.time() + 7, usegmt=True)
        self._send(429, "{}", Retry_After=wait)

    def _late(self, body, question):
        time.sleep(1.0)
        self._ok(body, question)

    def _drip(self, body, question):
        text = json.dumps(self._data(body, question))
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        for letter in text[:12]:
            self.wfile.write(letter.encode())
            self.wfile.flush()
            time.sleep(0.1)

    def _cut(self, body, question):
        text = json.dumps(self._data(body, question))
        self._send(200, text[:40], claimed=len(text))
        self.close_connection = True

    def _json(self, body, question):
        self._send(200, json.dumps(self._data(body, question))[:-20])

    def _nan(self, body, question):
        self._send(200, '{"choices": NaN}')

    def _html(self, body, question):
        self._send(200, "<html>Please wait</html>", "text/html")

    def _hang_up(self, body, question):
        self.close_connection = True

    def _empty(self, body, question):
        self._send(200, '{"choices": []}')

    def _none(self, body, question):
        self._send(200, json.dumps(self._data(body, question, message={"content": None})))

    def _bytes(self, body, question):
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", "2")
        self.end_headers()
        self.wfile.write(b"\xff\xfe")

    def _length(self, body, question):
        self._send(200, json.dumps(self._data(body, question, finish_reason="length")))

    def _filter(self, body, question):
        self._send(200, json.dumps(self._data(body, question, finish_reason="content_filter")))

    def _think(self, body, question):
        said = {"content": "5", "reasoning_content": "2 and 3"}
        self._send(200, json.dumps(self._data(body, question, message=said)))

    def _refuse(self, body, question):
        self._send(400, json.dumps({"error": {"message": "too long"}}))

    def _key(self, body, question):
        said = f"Incorrect API key: {self.headers['Authorization']}"
        self._send(401, json.dumps({"error": {"message": said}}))

    def _nowhere(self, body, question):
        self._send(404, json.dumps({"error": {"message": "no such model"}}))

    def _elsewhere(self, body, question):
        self._send(307, "", Location="http://127.0.0.1:1/v1")
