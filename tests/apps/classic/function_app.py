"""A small app in the classic style, for tests of the host."""

import json

import azure.functions as func

app = func.FunctionApp(http_auth_level=func.AuthLevel.ANONYMOUS)


@app.route("show/{id?}")
def Show(req: func.HttpRequest) -> func.HttpResponse:
    shown = {
        "method": req.method,
        "url": req.url,
        "params": dict(req.params),
        "route": dict(req.route_params),
        "header": req.headers.get("X-Many"),
        "body": req.get_body().decode(),
    }
    return func.HttpResponse(json.dumps(shown), mimetype="application/json")


@app.route("text")
async def Text(req: func.HttpRequest) -> str:
    return "text"


@app.route("nothing")
async def Nothing(req: func.HttpRequest) -> func.HttpResponse:
    return None


@app.route("cookies")
async def Cookies(req: func.HttpRequest) -> func.HttpResponse:
    response = func.HttpResponse(status_code=201)
    response.headers.add("X-Twice", "1")
    response.headers.add("X-Twice", "2")
    response.headers.add("Set-Cookie", "a=1; Path=/")
    response.headers.add("Set-Cookie", "b=2")
    return response


@app.route("raise")
async def Raise(req: func.HttpRequest) -> func.HttpResponse:
    raise RuntimeError("secret detail")


@app.function_name("Named")
@app.route()
async def some_function(req: func.HttpRequest) -> func.HttpResponse:
    return func.HttpResponse("named")
