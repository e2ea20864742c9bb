"""The list of data partitions."""

from starlette.responses import Response

from functions.call import Call
from functions.representations import json_response


async def list_partitions(call: Call) -> Response:
    """All partitions, as an array."""
    listed = await call.runtime.partitions.all()
    return await json_response(
        call,
        [
            {
                "partitionKey": each.partition.number,
                "partitionName": each.partition.name,
                "createdDate": each.created.isoformat(),
            }
            for each in listed
        ],
    )
