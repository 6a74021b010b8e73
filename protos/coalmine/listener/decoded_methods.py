"""In front of generated code: bytes that are no request reach its methods as an error."""

from typing import Any

import grpc

from coalmine.listener.reflection import ReflectedMethods
from coalmine.listener.request_decoding import decoder_of


class DecodedMethods:
    """What handlers are added to as to `methods`; bytes that are no request become InvalidRequest.

    Their methods are `answering`, and look for it in a stream.
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
