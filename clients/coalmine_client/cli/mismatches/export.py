"""A kept mismatch as files: its tensors for numpy, its request for `coalmine infer --request`.

No file needs pickle or runs as a program. numpy has no plain type for BF16 and BYTES. The .npz
stores BF16 as float32, which holds each of its values. It stores BYTES as two arrays: NAME/bytes
has all elements one after the other, and NAME/lengths has the tensor's shape.
"""

import io
import json
import re
import shlex
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final
from urllib.parse import quote

import numpy as np
from google.protobuf.message import DecodeError

from coalmine.command_line.failure import Failure, WrongUsage
from coalmine.control.v1 import control_pb2
from coalmine.errors import InvalidTensor
from coalmine.inference import inference_pb2 as pb
from coalmine.shown_value import one_line
from coalmine.tensors import BYTES, Array, Tensor
from coalmine_client.cli.atomic_file import write_private
from coalmine_client.cli.json_values import Json
from coalmine_client.cli.mismatch_bodies import MismatchBodies, why_no_request, why_not_kept
from coalmine_client.cli.request_json import request_json

_PLAIN_ID: Final = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9._-]*")
# Of other names, what a path or a terminal would obey is spelt out.
_PLAIN_NAME: Final = re.compile(r"[\w .:\[\]()-]+")


@dataclass(frozen=True, slots=True)
class Export:
    """The content of .npz and .json, and the command that replays the request; "": none."""

    arrays: Mapping[str, Array]
    request: str
    replay: str
    # What the files lack, a line each.
    missing: tuple[str, ...] = ()


# ---------------------------------------------------------------- what is written, pure


def export_of(mismatch: control_pb2.Mismatch, kept: MismatchBodies) -> Export:
    """Return the files of a mismatch. Raises Failure where nothing of it was kept."""
    if reason := why_not_kept(mismatch):
        raise Failure(f"'{mismatch.id}' has no values to export: {reason}")
    request, text, problem = _request_and_json(mismatch)
    return Export(
        arrays=dict(_arrays_by_name(kept)),
        request=text,
        replay="" if problem else _replay_command(request, mismatch),
        missing=tuple(_gaps(mismatch, kept, problem)),
    )


def _request_and_json(mismatch: control_pb2.Mismatch) -> tuple[pb.ModelInferRequest, str, str]:
    """Return the request, as JSON too, and why it can't be written; "" where it can."""
    if problem := why_no_request(mismatch):
        return pb.ModelInferRequest(), "", problem
    try:
        request = pb.ModelInferRequest.FromString(mismatch.request)
        text = json.dumps(request_json(request), allow_nan=False)
    except (DecodeError, InvalidTensor) as error:
        return pb.ModelInferRequest(), "", one_line(str(error))
    if not request.inputs:
        return request, "", "it has no inputs"
    return request, f"{text}\n", ""


def _replay_command(request: pb.ModelInferRequest, mismatch: control_pb2.Mismatch) -> str:
    model = request.model_name or mismatch.route
    words = ["coalmine", "infer", "TARGET", model]
    if request.model_version:
        words += ["--version", request.model_version]
    return shlex.join([*words, "--request"])


def _gaps(mismatch: control_pb2.Mismatch, kept: MismatchBodies, problem: str) -> Iterator[str]:
    if problem:
        yield f"the request is not written: {problem}"
    elif mismatch.inputs_dropped:
        yield f"the request lacks inputs that the route drops: {', '.join(mismatch.inputs_dropped)}"
    for side, body in (("reference", kept.reference), ("candidate", kept.candidate)):
        if body.unreadable:
            yield f"the {side} can't be read: {one_line(body.unreadable)}"


def _arrays_by_name(kept: MismatchBodies) -> Iterator[tuple[str, Array]]:
    sides = {"inputs": kept.request, "reference": kept.reference, "candidate": kept.candidate}
    for side, body in sides.items():
        for tensor in body.tensors.values():
            for name, array in _plain_arrays(tensor):
                yield f"{side}/{name}", array


def _plain_arrays(tensor: Tensor) -> Iterator[tuple[str, Array]]:
    """Yield the tensor as arrays that need no pickle."""
    name = tensor.name if _PLAIN_NAME.fullmatch(tensor.name) else quote(tensor.name, safe="")
    if tensor.datatype == BYTES:
        elements = tensor.array.ravel().tolist()
        lengths = np.array([len(each) for each in elements], np.int64)
        yield f"{name}/bytes", np.frombuffer(b"".join(elements), np.uint8)
        yield f"{name}/lengths", lengths.reshape(tensor.array.shape)
    elif tensor.datatype == "BF16":
        yield name, tensor.array.astype(np.float32)
    else:
        yield name, tensor.array


# ---------------------------------------------------------------- writing


@dataclass(frozen=True, slots=True)
class Written:
    """The files, None for none, and the command that replays the request."""

    npz: Path | None
    request: Path | None
    replay: str

    def as_json(self) -> Json:
        """Return {npz, request, replay}, null for what there isn't."""
        paths: dict[str, Any] = {"npz": self.npz, "request": self.request}
        texts = {name: str(path) if path else None for name, path in paths.items()}
        return {**texts, "replay": self.replay or None}


def write_export(export: Export, record_id: str, folder: Path, *, force: bool) -> Written:
    """Write the files as RECORD_ID.npz and RECORD_ID.json. Raises Failure, WrongUsage.

    Without `force`, nothing is written where a file of either name is there.
    """
    if not _PLAIN_ID.fullmatch(record_id):
        raise WrongUsage(f"'{one_line(record_id)}' is no id of a mismatch")
    contents = {
        folder / f"{record_id}.npz": _npz_bytes(export.arrays) if export.arrays else b"",
        folder / f"{record_id}.json": export.request.encode(),
    }
    wanted = {path: content for path, content in contents.items() if content}
    there = [path for path in wanted if path.exists()]
    if there and not force:
        raise Failure(f"{there[0]} is there already; --force overwrites it")
    for path, content in wanted.items():
        write_private(path, content)
    npz, request = (path if path in wanted else None for path in contents)
    replay = f"{export.replay} {shlex.quote(str(request))}" if request else ""
    return Written(npz, request, replay)


def _npz_bytes(arrays: Mapping[str, Array]) -> bytes:
    file = io.BytesIO()
    np.savez(file, allow_pickle=False, **arrays)
    return file.getvalue()
