"""An engine in the test's own process, running a `df.DFApp`, with the SDK's client.

Every answer of every orchestrator is recorded. When a host ends, the recording is
checked: an orchestrator called twice with the same history must answer the same, and
an action once asked for must stay in its place (`assert_deterministic`). The tests of
our own orchestrators use the same host, so they get the same check.
"""

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, unquote, urlsplit

import azure.durable_functions as df
from azure.functions.meta import Datum

from localhost import indexing
from localhost.durable.client import binding_payload
from localhost.durable.engine import Engine, Limits, wall_clock
from localhost.durable.functions import Functions
from localhost.durable.web_api import Request, WebApi
from localhost.errors import InvocationFailed
from localhost.extension import ClientEndpoint
from localhost.worker import Worker
from orchestrations import fast_replay

RPC_URL = "http://127.0.0.1:1/secret/durabletask/"
ENDPOINT = ClientEndpoint({"hubName": "test"}, RPC_URL, "http://localhost:8080", "key")


class RecordingInvoker:
    """Calls functions through the host's worker and notes what orchestrators answer."""

    def __init__(self, worker: Worker) -> None:
        self.worker = worker
        self.episodes: list[tuple[str, dict[str, Any], str]] = []
        self.calls: dict[str, int] = {}

    async def invoke(self, name: str, inputs: Mapping[str, Datum]) -> Datum | None:
        self.calls[name] = self.calls.get(name, 0) + 1
        function = self.worker.functions.get(name)
        if function is None or function.trigger.type != "orchestrationTrigger":
            return await self.worker.invoke(name, inputs)
        (datum,) = inputs.values()
        body = json.loads(datum.value)
        try:
            answer = await self.worker.invoke(name, inputs)
        except InvocationFailed as failed:
            self.episodes.append((name, body, failed.message))
            raise
        self.episodes.append((name, body, str(answer.value) if answer else ""))
        return answer


def actions(answer: str) -> list[Any]:
    """The actions in an orchestrator's answer, or in what it raised."""
    text = answer.rpartition("$OutOfProcData$:")[2]
    try:
        return [action for batch in json.loads(text)["actions"] for action in batch]
    except ValueError:
        return []


def _without_cancellation(action: Any) -> Any:
    """The action, timers as they were before somebody canceled them."""
    if isinstance(action, list):
        return [_without_cancellation(item) for item in action]
    if isinstance(action, dict):
        return {
            key: _without_cancellation(value)
            for key, value in action.items()
            if key != "isCanceled"
        }
    return action


async def assert_deterministic(recording: RecordingInvoker) -> None:
    """The same history gives the same answer, and answers only ever grow."""
    previous: dict[str, list[Any]] = {}
    for name, body, answer in recording.episodes:
        started = next(e for e in body["history"] if e["EventType"] == 0)
        execution = started["OrchestrationInstance"]["ExecutionId"]
        asked = _without_cancellation(actions(answer))
        before = previous.get(execution, [])
        assert asked[: len(before)] == before, f"{name} changed its mind"
        previous[execution] = asked
    for name, body, answer in recording.episodes[-5:]:
        function = recording.worker.functions[name]
        try:
            datum = await recording.worker.invoke(
                name, {function.trigger.name: Datum(json.dumps(body), "string")}
            )
            again = str(datum.value) if datum else ""
        except InvocationFailed as failed:
            again = failed.message
        assert again == answer, f"{name} answers the same history differently"


class Host:
    """A running engine and what a test wants to know of it."""

    def __init__(self, engine: Engine, recording: RecordingInvoker) -> None:
        self.engine = engine
        self.recording = recording
        self.api = WebApi(lambda: engine.management, ENDPOINT.public_url, ENDPOINT.key)
        self.client = df.DurableOrchestrationClient(binding_payload(ENDPOINT))
        self.client._post_async_request = self._post
        self.client._get_async_request = self._get
        self.client._delete_async_request = self._delete

    async def request(self, method: str, url: str, data: Any = None) -> list[Any]:
        """Status and JSON of a call of the HTTP API, without HTTP."""
        parts = urlsplit(url.removeprefix(RPC_URL))
        request = Request(
            method,
            [unquote(part) for part in parts.path.split("/") if part],
            dict(parse_qsl(parts.query)),
            {},
            b"" if data is None else json.dumps(data).encode(),
        )
        answer = await self.api.answer(request)
        return [int(answer.status), json.loads(answer.text)]

    async def _post(self, url: str, data: Any = None, *_: Any, **__: Any) -> list[Any]:
        return await self.request("POST", url, data)

    async def _get(self, url: str, *_: Any) -> list[Any]:
        return await self.request("GET", url)

    async def _delete(self, url: str, *_: Any) -> list[Any]:
        return await self.request("DELETE", url)

    async def status(self, instance_id: str) -> dict[str, Any]:
        """The status of an instance as JSON."""
        answer: dict[str, Any] = (
            await self.request("GET", f"instances/{instance_id}")
        )[1]
        return answer

    async def until(
        self,
        instance_id: str,
        reached: Callable[[dict[str, Any]], bool],
        seconds: float = 30.0,
    ) -> dict[str, Any]:
        """The status as soon as it satisfies `reached`."""
        async with asyncio.timeout(seconds):
            while not reached(found := await self.status(instance_id)):
                await asyncio.sleep(0.005)
        return found

    async def end(self, instance_id: str, seconds: float = 30.0) -> dict[str, Any]:
        """The status once the instance has ended."""
        return await self.until(
            instance_id,
            lambda found: (
                found["runtimeStatus"] in {"Completed", "Failed", "Terminated"}
            ),
            seconds,
        )

    async def run(
        self, name: str, data: Any = None, instance_id: str | None = None
    ) -> dict[str, Any]:
        """Start an orchestration and wait for its end."""
        return await self.end(await self.client.start_new(name, instance_id, data))

    async def output(self, name: str, data: Any = None) -> Any:
        """What a new orchestration returns."""
        ended = await self.run(name, data)
        assert ended["runtimeStatus"] == "Completed", ended
        return ended["output"]


def load(app: df.DFApp) -> Worker:
    """A worker for an app object."""
    host = indexing.HostFile("", None, {})
    return Worker(indexing.App(Path(), indexing.index(app), host))


@asynccontextmanager
async def hosting(
    app: df.DFApp,
    folder: Path,
    *,
    limits: Limits | None = None,
    clock: Callable[[], int] = wall_clock,
    deterministic: bool = True,
) -> AsyncIterator[Host]:
    """An engine that runs the app; a second one in the same folder goes on with it."""
    fast_replay.apply()
    worker = load(app)
    recording = RecordingInvoker(worker)
    triggers = {f.name: f.trigger for f in worker.functions.values()}
    engine = Engine(
        folder / "durable.db",
        Functions(recording, triggers),
        limits or Limits(grace_seconds=0.5),
        clock,
    )
    worker.register_binding(
        "durableClient", lambda *_: Datum(binding_payload(ENDPOINT), "string")
    )
    await engine.start()
    host = Host(engine, recording)
    try:
        yield host
        if deterministic:
            await assert_deterministic(recording)
    finally:
        await engine.stop()
        worker.close()
