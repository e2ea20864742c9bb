"""A small app in the streaming style, for tests of the host."""

import asyncio
import os
from pathlib import Path

import azure.functions as func
from azurefunctions.extensions.http.fastapi import (
    JSONResponse,
    Request,
    Response,
    StreamingResponse,
)

app = func.FunctionApp(http_auth_level=func.AuthLevel.ANONYMOUS)
FIRED = Path(os.environ["FIRED"]) if "FIRED" in os.environ else None
ENTERED = Path(os.environ["ENTERED"]) if "ENTERED" in os.environ else None


@app.route("hello/{name?}", methods=["GET", "HEAD"])
async def Hello(req: Request) -> Response:
    return Response(f"Hello {req.path_params.get('name', 'world')}")


@app.route("items/{id:int}", methods=["GET"])
async def ItemByNumber(req: Request) -> Response:
    return JSONResponse({"number": req.path_params["id"]})


@app.route("items/{id}", methods=["GET", "DELETE"])
async def ItemByText(req: Request) -> Response:
    return JSONResponse({"text": req.path_params["id"], "method": req.method})


@app.route("v{version:int}/rest/{*path}", methods=["GET"])
async def Rest(req: Request) -> Response:
    return JSONResponse(dict(req.path_params))


@app.route("echo", methods=["POST"])
async def Echo(req: Request) -> Response:
    received = [chunk async for chunk in req.stream()]

    async def body():
        for chunk in received:
            yield chunk

    response = StreamingResponse(body())
    response.headers.append("x-twice", "1")
    response.headers.append("x-twice", "2")
    return response


@app.route("drip", methods=["GET"])
async def Drip(req: Request) -> Response:
    async def drops():
        try:
            while True:
                yield b"drop" * 1000
                await asyncio.sleep(0.01)
        finally:
            if FIRED:
                FIRED.write_text("closed")

    return StreamingResponse(drops())


@app.route("count", methods=["POST"])
async def Count(req: Request) -> Response:
    total = 0
    async for chunk in req.stream():
        total += len(chunk)
    return JSONResponse({"bytes": total})


@app.route("plain", methods=["GET"])
async def Plain(req: Request) -> Response:
    return {"plain": [1, 2]}


@app.route("sync", methods=["GET"])
def Sync(req: Request) -> Response:
    return Response("from a thread")


@app.route("fail", methods=["GET"])
async def Fail(req: Request) -> Response:
    raise ValueError("secret detail")


@app.route("slow", methods=["GET"])
async def Slow(req: Request, context: func.Context) -> Response:
    if ENTERED:
        ENTERED.write_text("")
    await asyncio.sleep(float(req.query_params.get("seconds", "1")))
    return Response(context.function_name)


@app.route("process", methods=["GET"])
async def ProcessId(req: Request) -> Response:
    return JSONResponse({"pid": os.getpid()})


@app.route("die", methods=["POST"])
async def Die(req: Request) -> Response:
    os._exit(9)


@app.route("guarded", methods=["GET"], auth_level=func.AuthLevel.FUNCTION)
async def Guarded(req: Request) -> Response:
    return Response("in")


@app.route("administered", methods=["GET"], auth_level=func.AuthLevel.ADMIN)
async def Administered(req: Request) -> Response:
    return Response("in")


@app.timer_trigger(schedule="%TICK_SCHEDULE%", arg_name="timer", run_on_startup=False)
async def Tick(timer: func.TimerRequest) -> None:
    if FIRED:
        with FIRED.open("a") as file:
            file.write(f"{os.getpid()} {timer.past_due}\n")
