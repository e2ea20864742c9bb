"""Indexing an app and calling its functions, without a server."""

import azure.functions as func
import pytest
from azure.functions.meta import Datum

from localhost.errors import InvocationFailed, LoadError
from localhost.indexing import (
    App,
    HostFile,
    apply_local_settings,
    index,
    load,
    read_host_file,
    resolve,
    seconds,
)
from localhost.worker import Worker, trigger_datum


def worker_of(app, folder, timeout=5.0):
    return Worker(App(folder, index(app), HostFile("api", timeout, {})))


@pytest.fixture
def app():
    return func.FunctionApp(http_auth_level=func.AuthLevel.ANONYMOUS)


def json_trigger(app, name="data"):
    return app.generic_trigger(arg_name=name, type="activityTrigger")


async def test_a_result_is_encoded_by_the_converter_of_its_trigger(app, tmp_path):
    @json_trigger(app)
    async def Double(data: int) -> int:
        return data * 2

    worker = worker_of(app, tmp_path)
    inputs = trigger_datum(worker.functions["Double"], Datum("21", "string"))
    assert await worker.invoke("Double", inputs) == Datum("42", "json")


async def test_sync_functions_run_in_a_thread_and_get_a_context(app, tmp_path):
    seen = []

    @json_trigger(app)
    def Look(data: str, context: func.Context) -> str:
        seen.append((data, context.function_name, len(context.invocation_id)))
        return context.function_directory

    worker = worker_of(app, tmp_path)
    result = await worker.invoke("Look", {"data": Datum('"x"', "json")})
    assert result == Datum(f'"{tmp_path}"', "json")
    assert seen == [("x", "Look", 36)]


async def test_what_a_function_raises_comes_out_as_invocation_failed(app, tmp_path):
    @json_trigger(app)
    async def Fail(data: int) -> int:
        raise KeyError("missing")

    with pytest.raises(InvocationFailed) as caught:
        await worker_of(app, tmp_path).invoke("Fail", {"data": Datum("1", "json")})
    failure = caught.value
    assert (failure.function, failure.type) == ("Fail", "KeyError")
    assert failure.message == "'missing'"
    assert "in Fail" in failure.details


async def test_an_unknown_function_is_an_invocation_failure(app, tmp_path):
    @json_trigger(app)
    async def Known(data: int) -> int:
        return data

    with pytest.raises(InvocationFailed, match="no such function"):
        await worker_of(app, tmp_path).invoke("Unknown", {})


async def test_a_registered_binding_is_given_at_every_call(app, tmp_path):
    @json_trigger(app)
    @app.generic_input_binding(arg_name="client", type="durableClient")
    async def Use(data: int, client: str) -> str:
        return f"{client}{data}"

    worker = worker_of(app, tmp_path)
    with pytest.raises(LoadError, match="no durableClient binding"):
        worker.check_bindings()
    calls = []

    def provide(function, binding):
        calls.append((function.name, binding.name))
        return Datum(f"call{len(calls)}-", "string")

    worker.register_binding("durableClient", provide)
    worker.check_bindings()
    for number in (1, 2):
        result = await worker.invoke("Use", {"data": Datum("7", "json")})
        assert result == Datum(f'"call{number}-7"', "json")
    assert calls == [("Use", "client")] * 2


def test_functions_are_listed_by_name_and_indexing_can_be_repeated(app):
    @app.route("b")
    async def Beta(req: func.HttpRequest) -> str:
        return "b"

    @app.route("a")
    async def Alpha(req: func.HttpRequest) -> str:
        return "a"

    assert [function.name for function in index(app)] == ["Alpha", "Beta"]
    assert [function.name for function in index(app)] == ["Alpha", "Beta"]


def test_a_handler_without_the_parameter_of_a_binding_is_a_load_error(app):
    @app.route("a", trigger_arg_name="request")
    async def Alpha(req: func.HttpRequest) -> str:
        return "a"

    with pytest.raises(LoadError, match="no parameter request"):
        index(app)


def test_settings_in_bindings_are_replaced_except_in_routes(app, monkeypatch):
    @app.timer_trigger(schedule="%WHEN%", arg_name="timer")
    async def Tick(timer: func.TimerRequest) -> None:
        return

    @app.route("%WHEN%")
    async def Web(req: func.HttpRequest) -> str:
        return ""

    with pytest.raises(LoadError, match="Tick: %WHEN% is used"):
        index(app)
    monkeypatch.setenv("WHEN", "0 0 * * * *")
    tick, web = index(app)
    assert tick.trigger.properties["schedule"] == "0 0 * * * *"
    assert web.trigger.properties["route"] == "%WHEN%"


def test_host_json_gives_prefix_timeout_and_durable_options(tmp_path, monkeypatch):
    assert read_host_file(tmp_path) == HostFile("api", 1800.0, {})
    monkeypatch.setenv("HUB", "mine")
    (tmp_path / "host.json").write_text(
        '{"functionTimeout": "-1", "extensions": {"http": {"routePrefix": "/x/"},'
        '"durableTask": {"hubName": "%HUB%"}}}'
    )
    assert read_host_file(tmp_path) == HostFile("x", None, {"hubName": "mine"})
    (tmp_path / "host.json").write_text("{")
    with pytest.raises(LoadError, match=r"host\.json is not valid JSON"):
        read_host_file(tmp_path)
    (tmp_path / "host.json").write_text("[]")
    with pytest.raises(LoadError, match="not a JSON object"):
        read_host_file(tmp_path)


def test_local_settings_fill_in_what_the_environment_lacks(tmp_path, monkeypatch):
    monkeypatch.setenv("SET_BEFORE", "environment")
    monkeypatch.setenv("SET_BY_FILE", "")
    monkeypatch.delenv("SET_BY_FILE")
    (tmp_path / "local.settings.json").write_text(
        '{"Values": {"SET_BEFORE": "file", "SET_BY_FILE": 7}}'
    )
    apply_local_settings(tmp_path)
    assert resolve("%SET_BEFORE%-%SET_BY_FILE%") == "environment-7"
    (tmp_path / "local.settings.json").write_text('{"IsEncrypted": true}')
    with pytest.raises(LoadError, match="encrypted"):
        apply_local_settings(tmp_path)


def test_time_spans_are_read_as_dotnet_writes_them():
    assert seconds("00:10:00") == 600
    assert seconds("1.02:03:04.5") == 93784.5
    assert seconds("01:30") == 5400
    with pytest.raises(LoadError):
        seconds("ten minutes")


def test_a_folder_without_an_app_is_a_load_error(tmp_path):
    with pytest.raises(LoadError, match="no function_app"):
        load(tmp_path)
