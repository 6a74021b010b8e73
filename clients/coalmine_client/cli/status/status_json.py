"""The JSON of a route's status. Pure; by the rules of message_json."""

from coalmine.control.v1 import control_pb2 as pb
from coalmine_client.cli.json_values import Json, ratio
from coalmine_client.cli.message_json import message_json
from coalmine_client.cli.route_health import health_of


def status_json(of: pb.RouteStatus) -> Json:
    """Return the status, with the route's health, and each variant's share of the split."""
    found = message_json(of)
    split_requests = sum(each.split_requests for each in of.variants)
    for each in found["variants"]:
        each["split_share"] = ratio(each["split_requests"], split_requests)
    return {"health": health_of(of).as_json(), **found}
