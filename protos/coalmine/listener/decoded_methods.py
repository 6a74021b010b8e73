"""Methods of generated code that get an error for bytes that are no request."""

from typing import Any

import grpc

from coalmine.listener.reflection import ReflectedMethods
from coalmine.listener.request_decoding import decoder_of


class DecodedMethods:
    """Takes handlers for `methods`. Bytes that are no request become InvalidRequest.

    The methods of the handlers are `answering`. Those of streams look for the error themselves.
    """

    def __init__(self, methods: ReflectedMethods) -> None:
        self._methods = methods

    def add_generic_rpc_handlers(self, generic_rpc_handlers: Any) -> None:
        """Add handlers."""
        self._methods.add_generic_rpc_handlers([_Reading(each) for each in generic_rpc_handlers])

    def add_registered_method_handlers(self, service_name: str, method_handlers: Any) -> None:
        """Do nothing: gRPC would prefer these, and they are in the generic handlers too."""


class _Reading(grpc.GenericRpcHandler):
    def __init__(self, handlers: grpc.GenericRpcHandler) -> None:
        self._handlers = handlers

    def service(self, handler_call_details: grpc.HandlerCallDetails) -> Any:
        found: Any = self._handlers.service(handler_call_details)
        if found is None or found.request_deserializer is None:
            return found
        method = handler_call_details.method.removeprefix("/")
        return found._replace(request_deserializer=decoder_of(found.request_deserializer, method))
