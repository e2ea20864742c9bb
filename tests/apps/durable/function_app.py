"""A small Durable app in the streaming style, for tests of the host."""

import os

import azure.durable_functions as df
import azure.functions as func
from azurefunctions.extensions.http.fastapi import JSONResponse, Request, Response

app = df.DFApp(http_auth_level=func.AuthLevel.ANONYMOUS)


@app.route("start/{count:int}", methods=["POST"])
@app.durable_client_input(client_name="client")
async def Start(req: Request, client: df.DurableOrchestrationClient) -> Response:
    count = int(req.path_params["count"])
    operation_id = await client.start_new("Double", client_input=count)
    links = client.create_http_management_payload(operation_id)
    return JSONResponse({"id": operation_id, "links": links}, status_code=202)


@app.route("status/{id}", methods=["GET"])
@app.durable_client_input(client_name="client")
async def Status(req: Request, client: df.DurableOrchestrationClient) -> Response:
    status = await client.get_status(req.path_params["id"])
    return JSONResponse(status.to_json())


@app.route("process", methods=["GET"])
async def ProcessId(req: Request) -> Response:
    return JSONResponse({"pid": os.getpid()})


@app.orchestration_trigger(context_name="context")
def Double(context: df.DurableOrchestrationContext):
    count = context.get_input()
    tasks = [context.call_activity("Twice", number) for number in range(count)]
    results = yield context.task_all(tasks)
    return {"sum": sum(one["value"] for one in results), "pid": results[0]["pid"]}


@app.activity_trigger(input_name="number")
def Twice(number: int) -> dict:
    return {"value": number * 2, "pid": os.getpid()}
