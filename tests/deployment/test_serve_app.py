"""The server's application, asked without a network: answers, refusals, limits, and what it says of itself."""

import asyncio
import contextlib
import re
import shutil
import sys
import threading
from pathlib import Path
from types import SimpleNamespace

import httpx
import pytest
import torch

from electra_fast.errors import CheckpointError, ConfigError
from electra_fast.models.weights import read_weights
from electra_fast.workflows.deployment.serve import model as loading
from electra_fast.workflows.deployment.serve.model import Loaded, load
from electra_fast.workflows.deployment.serve.options import ServeOptions
from electra_fast.workflows.deployment.serve.schemas import Schemas
from electra_fast.workflows.deployment.serve.service import Service
from electra_fast.workflows.evaluation import load_task

sys.path.insert(0, str(Path(__file__).parent))
from tiny_models import LABELS, LONGEST, write_model


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return write_model(tmp_path_factory.mktemp("served"))


@pytest.fixture(scope="module")
def predictor(model):
    return load_task(model, precision="fp32", device="cpu")


@pytest.fixture(scope="module")
def serving(model, predictor):
    """``with serving(timeout=1) as (service, client)``: an asynchronous client of a service with these options."""

    @contextlib.contextmanager
    def service(keys=(), **options):
        with Service(Loaded(predictor, "as asked for"), ServeOptions(model, **options), keys) as made:
            yield made

    return service


def ask(service, *requests, **options):
    """The responses to some requests, sent all at once: ``(method, path, what httpx takes)``."""

    async def run():
        transport = httpx.ASGITransport(service.app, raise_app_exceptions=False)
        async with httpx.AsyncClient(transport=transport, base_url="http://test", **options) as client:
            sent = (client.request(method, path, **content) for method, path, content in requests)
            return await asyncio.gather(*sent)

    return asyncio.run(run())


def predict(inputs, **more):
    return ("POST", "/predict", {"json": {"inputs": inputs}, **more})


def test_predictions_are_the_predictors_one_by_one_and_together(serving, predictor):
    texts = ["a good film", "bad", "so so, but long: " + "word " * 40, "", "Ünïcode ☃ \x07 and more"]
    expected = predictor.predict(texts)
    with serving() as service:
        answers = ask(
            service, *(predict(text) for text in texts), predict(texts), predict([{"text": texts[0]}, texts[1]])
        )
    assert [answer.status_code for answer in answers] == [200] * 7
    singles = [answer.json()["predictions"] for answer in answers[:5]]
    for found, wanted in zip([p for one in singles for p in one], expected, strict=True):
        assert found["label"] == wanted["label"]
        assert found["probabilities"] == pytest.approx(wanted["probabilities"], abs=1e-5)
    assert [p["label"] for p in answers[5].json()["predictions"]] == [p["label"] for p in expected]
    assert [p["label"] for p in answers[6].json()["predictions"]] == [p["label"] for p in expected[:2]]


def test_long_requests_are_made_into_tokens_beside_the_event_loop(serving, predictor):
    text = "abc " * 3000
    with serving() as service:
        answers = ask(service, *[predict([text, "short"])] * 4)
    expected = predictor.predict([text, "short"])
    for answer in answers:
        assert [p["label"] for p in answer.json()["predictions"]] == [p["label"] for p in expected]


def test_a_pair_needs_both_texts(tmp_path, serving):
    loaded = Loaded(load_task(write_model(tmp_path, pair=True), precision="fp32", device="cpu"), "")
    with Service(loaded, ServeOptions(tmp_path)) as service:
        good, half, bare = ask(
            service, predict({"text": "a", "text_pair": "b"}), predict([{"text": "a"}]), predict("a text")
        )
    assert good.status_code == 200
    assert (half.status_code, bare.status_code) == (422, 422)
    assert half.json()["detail"][0]["loc"] == ["body", "inputs", 0, "text_pair"]


OTHER_TASKS = {
    "ner": (
        {},
        ["marie met bob in a very long text of many letters", "", {"text": "bob"}, {"tokens": ["bob", "met", "marie"]}],
        [{"tokens": []}, {"tokens": "bob"}, {"words": ["bob"]}, {}],
    ),
    "qa": (
        {"overlap": 8, "max_question": 12},
        [
            {"question": "who?", "context": "bob met marie. " * 6},
            {"question": "", "context": "a"},
            {"question": "a long question, cut off somewhere", "context": ""},
        ],
        ["a text", {"question": "who?"}, {"question": "who?", "context": ["a"]}],
    ),
    "choice": (
        {},
        [{"context": "it rains", "choices": ["yes", "no"]}, {"question": "is it?", "choices": ["a", "b", "c", "d"]}],
        ["a text", {"context": "it"}, {"context": "it", "choices": ["one"]}, {"choices": ["a", "b"]}],
    ),
}


@pytest.mark.parametrize("name", OTHER_TASKS)
def test_other_tasks(name, tmp_path):
    fields, inputs, wrong = OTHER_TASKS[name]
    predictor = load_task(write_model(tmp_path, name, **fields), precision="fp32", device="cpu")
    with Service(Loaded(predictor, ""), ServeOptions(tmp_path, max_batch_tokens=50)) as service:
        answers = ask(service, *(predict(one) for one in inputs), predict(inputs))
        refused = ask(service, *(predict(one) for one in wrong))
    assert [answer.status_code for answer in answers] == [200] * (len(inputs) + 1), answers[0].text
    together = answers[-1].json()["predictions"]
    for found in ([answer.json()["predictions"][0] for answer in answers[:-1]], together):
        for one, wanted in zip(found, predictor.predict(inputs), strict=True):
            assert one.keys() == wanted.keys()
            assert [one[key] for key in one if isinstance(one[key], str)] == [
                wanted[key] for key in wanted if isinstance(wanted[key], str)
            ]
    assert [answer.status_code for answer in refused] == [422] * len(wrong)
    assert all(answer.json()["detail"] for answer in refused)


def test_translation_takes_a_text():
    schemas = Schemas(SimpleNamespace(name="translation", inputs=("source",)), 4)
    assert schemas.inputs({"inputs": "a"}) == ["a"]
    assert schemas.inputs({"inputs": ["a", {"source": "b"}]}) == ["a", {"source": "b"}]


@pytest.mark.parametrize(
    ("status", "content"),
    [
        (400, {"content": b'{"inputs": "a'}),
        (400, {"content": b""}),
        (400, {"content": b'{"inputs": "\xff"}'}),
        (400, {"content": rb'{"inputs": "\ud800"}'}),
        (400, {"content": b'{"inputs": NaN}'}),
        (400, {"content": b"[" * 9999 + b"]" * 9999}),
        (422, {"json": "a"}),
        (422, {"json": {"inputs": None}}),
        (422, {"json": {"inputs": 5}}),
        (422, {"json": {"inputs": []}}),
        (422, {"json": {"inputs": ["a", 5]}}),
        (422, {"json": {"inputs": {"texts": "a"}}}),
        (422, {"json": {"inputs": {"text": "a", "more": 1}}}),
        (422, {"json": {"inputs": "a", "more": 1}}),
        (422, {"json": {}}),
        (413, {"json": {"inputs": ["a"] * 65}}),
        (413, {"json": {"inputs": "a" * 20_000}}),
        (413, {"json": {"inputs": ["a " * 200] * 60}}),
        (415, {"json": {"inputs": "a"}, "headers": {"content-type": "text/plain"}}),
        (415, {"json": {"inputs": "a"}, "headers": {"content-encoding": "gzip"}}),
    ],
)
def test_a_request_that_cannot_be_answered_is_told_why(serving, status, content):
    headers = {"content-type": "application/json", **content.pop("headers", {})}
    with serving(max_body=20_000, max_inputs=64, max_tokens=1000) as service:
        (answer,) = ask(service, ("POST", "/predict", {**content, "headers": headers}))
    assert answer.status_code == status, answer.text
    assert answer.json()["detail"]


def test_fields_are_named_without_their_values(serving):
    with serving() as service:
        (answer,) = ask(service, predict(["a", {"texts": "a secret"}]))
    mistakes = answer.json()["detail"]
    assert [mistake["loc"] for mistake in mistakes] == [["body", "inputs", 1, "text"], ["body", "inputs", 1, "texts"]]
    assert "secret" not in answer.text


def test_other_paths_and_methods(serving):
    with serving() as service:
        answers = ask(
            service, ("GET", "/predict", {}), ("POST", "/", {}), ("GET", "/predict/", {}), ("PUT", "/model", {})
        )
        assert [answer.status_code for answer in answers] == [405, 404, 404, 405]


def test_the_page_needs_no_other_server_and_no_key(serving):
    with serving(keys=("k-1",)) as service:
        (page,) = ask(service, ("GET", "/docs", {}))
        named = re.findall(r"""(?:src|href)="([^"]+)""", page.text)
        assert {name.rpartition(".")[2] for name in named} == {"js", "css", "png"}
        assert all(name.startswith("/docs/assets/") for name in named)
        assert "http" not in page.text
        answers = ask(service, *(("GET", name, {}) for name in named))
        assert [answer.status_code for answer in answers] == [200] * 3
        outside = ask(service, ("GET", "/docs/assets/..%2f..%2fmodel", {}), ("GET", "/docs/assets/none.js", {}))
        assert [answer.status_code for answer in outside] == [404, 404]


def test_keys(serving):
    right, wrong = {"authorization": "Bearer k-1"}, {"authorization": "Bearer k-3"}
    with serving(keys=("k-1", "k-2")) as service:
        for path in ("/model", "/metrics"):
            answers = ask(service, *(("GET", path, {"headers": h}) for h in ({}, wrong, right, {"x-api-key": "k-2"})))
            assert [answer.status_code for answer in answers] == [401, 403, 200, 200]
        answers = ask(service, predict("a"), predict("a", headers=wrong), predict("a", headers=right))
        assert [answer.status_code for answer in answers] == [401, 403, 200]
        assert answers[0].headers["www-authenticate"] == "Bearer"
        basic = {"authorization": "Basic k-1"}
        answers = ask(service, predict("a", headers=basic), ("GET", "/health", {}), ("GET", "/ready", {}))
        assert [answer.status_code for answer in answers] == [401, 200, 200]
        (page,) = ask(service, ("GET", "/openapi.json", {}))
        assert page.json()["paths"]["/predict"]["post"]["security"]


@pytest.fixture
def hold(predictor, monkeypatch):
    """A function after whose call the model computes nothing until the event that it returns is set."""
    go, run = threading.Event(), predictor.run

    def waiting(rows):
        assert go.wait(10)
        return run(rows)

    def begin():
        monkeypatch.setattr(predictor, "run", waiting)
        return go

    yield begin
    go.set()


def test_a_full_queue_is_429_and_a_slow_one_504(serving, hold):
    with serving(queue=2, max_inputs=2, timeout=0.3, max_wait_ms=0) as service:
        held = hold()
        # One in computation, two waiting, and for the others there is no room.
        answers = ask(service, *[predict("a")] * 6)
        assert {answer.status_code for answer in answers} == {429, 504}
        full = next(answer for answer in answers if answer.status_code == 429)
        assert int(full.headers["retry-after"]) >= 1
        held.set()
        assert ask(service, predict("a"))[0].status_code == 200


def test_a_client_that_goes_away_is_not_computed(serving, hold):
    async def leave(service):
        held = hold()
        gone = asyncio.Event()
        messages = [{"type": "http.request", "body": b'{"inputs": ["a", "b"]}', "more_body": False}]

        async def receive():
            if messages:
                return messages.pop()
            await gone.wait()
            return {"type": "http.disconnect"}

        async def send(message):
            sent.append(message)

        headers = [(b"content-type", b"application/json")]
        scope = {"type": "http", "method": "POST", "path": "/predict", "headers": headers, "query_string": b""}
        first = asyncio.ensure_future(service.app(dict(scope), receive_now(b'{"inputs": "z"}'), send))
        await asyncio.sleep(0.05)  # it is in computation
        asking = asyncio.ensure_future(service.app(dict(scope), receive, send))
        while service.batcher.waiting != 2:
            await asyncio.sleep(0.01)
        gone.set()
        await asking
        assert service.batcher.waiting == 0
        held.set()
        await first

    def receive_now(body):
        async def receive():
            if body_left:
                return {"type": "http.request", "body": body_left.pop(), "more_body": False}
            await asyncio.sleep(30)

        body_left = [body]
        return receive

    sent = []
    with serving(max_wait_ms=0) as service:
        asyncio.run(leave(service))
        text = service.metrics.text().decode()
    assert 'electra_requests_total{path="/predict",status="499"} 1.0' in text
    assert "electra_batch_requests_sum 1.0" in text


def test_a_body_that_does_not_come_is_408_and_one_without_end_413(serving):
    async def run(service, chunks):
        sent = []

        async def receive():
            if chunks:
                return {"type": "http.request", "body": chunks.pop(), "more_body": True}
            await asyncio.sleep(30)

        async def send(message):
            sent.append(message)

        headers = [(b"content-type", b"application/json")]
        scope = {"type": "http", "method": "POST", "path": "/predict", "headers": headers, "query_string": b""}
        await service.app(scope, receive, send)
        return sent[0]["status"]

    with serving(timeout=0.2, max_body=100) as service:
        assert asyncio.run(run(service, [b"["])) == 408
        assert asyncio.run(run(service, [b"x" * 90] * 1000)) == 413


def test_a_failing_model_is_500_and_the_server_goes_on(serving, predictor, monkeypatch, caplog):
    with serving() as service, monkeypatch.context() as patch:
        patch.setattr(predictor.task.__class__, "infer", lambda *_: 1 / 0)
        (answer,) = ask(service, predict("a"))
        assert answer.status_code == 500
        assert "ZeroDivisionError" in caplog.text
        patch.undo()
        assert ask(service, predict("a"))[0].status_code == 200


def test_what_it_says_of_itself(serving, model):
    with serving() as service:
        ask(service, predict("a"), predict(5))
        health, ready, about, figures, page = ask(
            service, *(("GET", path, {}) for path in ("/health", "/ready", "/model", "/metrics", "/openapi.json"))
        )
        service.state.draining = True
        ending, last = ask(service, ("GET", "/ready", {}), predict("a"))
    assert (health.status_code, ready.status_code, ending.status_code, last.status_code) == (200, 200, 503, 200)
    assert last.headers["connection"] == "close"
    facts = about.json()
    assert facts["task"] == "classification"
    assert facts["labels"] == list(LABELS["classification"])
    assert facts["max_length"] == LONGEST
    assert facts["precision"] == "fp32"
    assert facts["backends"]["attention"]["runs"] in ("native", "triton", "reference")
    for line in (
        'electra_requests_total{path="/predict",status="200"} 1.0',
        'electra_requests_total{path="/predict",status="422"} 1.0',
        "electra_request_seconds_count 2.0",
        "electra_queue_sequences 0.0",
        "electra_tokens_total 3.0",
        "electra_batch_tokens_count 1.0",
    ):
        assert line in figures.text
    described = page.json()["paths"]["/predict"]["post"]
    example = described["requestBody"]["content"]["application/json"]["example"]
    shown = described["responses"]["200"]["content"]["application/json"]["example"]["predictions"]
    assert len(shown) == len(example["inputs"])
    assert set(shown[0]["probabilities"]) == set(LABELS["classification"])
    assert {"400", "401", "413", "422", "429", "504"} <= set(described["responses"])


def test_the_thread_that_ended_is_noticed(serving):
    with serving() as service:
        service.batcher.close()
        service.batcher.join(5)
        health, ready, late = ask(service, ("GET", "/health", {}), ("GET", "/ready", {}), predict("a"))
    assert (health.status_code, ready.status_code, late.status_code) == (503, 503, 503)


def test_pickles_are_refused_unless_trusted(model, tmp_path):
    folder = tmp_path / "pickled"
    shutil.copytree(model, folder)
    torch.save(read_weights(folder), folder / "pytorch_model.bin")
    (folder / "model.safetensors").unlink()
    with pytest.raises(CheckpointError, match="--trust"):
        load(ServeOptions(folder, precision="fp32", device="cpu"))
    trusted = load(ServeOptions(folder, precision="fp32", device="cpu", trust=True)).predictor
    wanted = load(ServeOptions(model, precision="fp32", device="cpu")).predictor
    assert trusted.predict(["a text"]) == wanted.predict(["a text"])


def test_precision_is_measured(model, monkeypatch):
    monkeypatch.setattr(loading, "why_no_bf16", lambda device: None)
    for seconds, expected in (({"fp32": 2.0, "bf16": 1.0}, "bf16"), ({"fp32": 1.0, "bf16": 0.99}, "fp32")):
        monkeypatch.setattr(loading, "batch_seconds", lambda predictor, tokens, of=seconds: of[predictor.precision])
        loaded = load(ServeOptions(model, device="cpu"))
        assert loaded.predictor.precision == expected
        assert "bf16" in loaded.why
    monkeypatch.setattr(loading, "why_no_bf16", lambda device: "no such units")
    assert load(ServeOptions(model, device="cpu")).why == "no such units"


def test_a_model_that_is_not_there(tmp_path):
    with pytest.raises(CheckpointError, match="there is no directory"):
        load(ServeOptions(tmp_path / "none"))


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"port": 70000}, "port must be"),
        ({"port": -1}, "port must be at least 0"),
        ({"precision": "fp16"}, "precision must be auto, fp32, bf16 or int8"),
        ({"timeout": 0}, "timeout must be greater than 0"),
        ({"timeout": float("inf")}, "timeout must be"),
        ({"max_wait_ms": float("nan")}, "max_wait_ms must be"),
        ({"queue": 8, "max_inputs": 9}, "max_inputs must be at most queue"),
        ({"max_tokens": 0}, "max_tokens must be at least 1"),
        ({"max_batch_tokens": 0}, "max_batch_tokens must be at least 1"),
        ({"threads": 0}, "threads must be at least 1"),
    ],
)
def test_options_are_checked(values, message):
    with pytest.raises(ConfigError, match=message):
        ServeOptions("model", **values)


@pytest.mark.parametrize(
    ("content", "message"),
    [(None, "cannot be read"), (b"# none\n\n", "holds no key"), (b"a b", "line 1"), (b"\xff", "no text in UTF-8")],
)
def test_a_key_file_is_checked(tmp_path, content, message):
    path = tmp_path / "keys"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(ConfigError, match=message):
        ServeOptions("model", api_key_file=path).api_keys()


def test_a_key_file_is_read(tmp_path):
    path = tmp_path / "keys"
    path.write_text("# of the web site\nfirst-key\n\n  second_key  \n")
    assert ServeOptions("model", api_key_file=path).api_keys() == ("first-key", "second_key")
