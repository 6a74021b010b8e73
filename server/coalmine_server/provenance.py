"""The origin of a version: one flat file beside its model, shown as ModelMetadata.properties."""

import json
import os
import re
import stat
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import structlog

from coalmine.errors import StartError

_log = structlog.get_logger(__name__)

PROVENANCE_FILE: Final = "provenance.json"
BYTES_MAX: Final = 64 * 1024
METADATA_MAX: Final = 32
VALUE_MAX: Final = 1024

# What is written by `coalmine package` itself.
OWN: Final = (
    "coalmine",
    "python",
    "torch",
    "packaged_at",
    "source",
    "source_sha256",
    "git_commit",
    "git_dirty",
    "model_sha256",
    "model_bytes",
    "row_mixing",
)

_KEY: Final = re.compile(r"[A-Za-z][A-Za-z0-9._-]{0,63}")


def metadata_of(texts: Sequence[str]) -> dict[str, str]:
    """Return KEY=VALUE texts as a dictionary. Raises StartError."""
    if len(texts) > METADATA_MAX:
        raise StartError(f"metadata: expected at most {METADATA_MAX} entries, got {len(texts)}")
    found: dict[str, str] = {}
    for text in texts:
        key, equals, value = text.partition("=")
        if not equals or not _KEY.fullmatch(key):
            raise StartError(f"metadata '{text}': expected KEY=VALUE, KEY of A-Z, a-z, 0-9, . _ -")
        if key in OWN or key in found:
            reason = "is written by coalmine itself" if key in OWN else "is there twice"
            raise StartError(f"metadata '{key}': {reason}")
        if len(value) > VALUE_MAX or not value.isprintable():
            raise StartError(f"metadata '{key}': expected at most {VALUE_MAX} printable characters")
        found[key] = value
    return found


def dump(properties: Mapping[str, str]) -> bytes:
    """Return the file's content. Raises StartError where it would be too large to be read."""
    data = json.dumps(properties, indent=2, ensure_ascii=False).encode(errors="replace") + b"\n"
    if len(data) > BYTES_MAX:
        raise StartError(f"provenance: {len(data)} bytes, at most {BYTES_MAX} are read")
    return data


def load_properties(folder: Path) -> Mapping[str, str]:
    """Return the properties in a version's folder; none where there is no file.

    A broken file is logged and gives none: a good model is served all the same.
    """
    path = folder / PROVENANCE_FILE
    try:
        return _parsed_properties(_file_bytes(path))
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, RecursionError) as error:
        _log.warning("provenance_unreadable", path=str(path), reason=_error_line(error))
        return {}


def _file_bytes(path: Path) -> bytes:
    # Opening a FIFO would wait for its writer.
    handle = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    with open(handle, "rb") as file:  # noqa: PTH123 - over a descriptor
        if not stat.S_ISREG(os.fstat(handle).st_mode):
            raise ValueError("not a regular file")
        return file.read(BYTES_MAX + 1)


def _parsed_properties(data: bytes) -> Mapping[str, str]:
    if len(data) > BYTES_MAX:
        raise ValueError(f"over {BYTES_MAX} bytes")
    content: Any = json.loads(data.decode())
    if not isinstance(content, dict) or not all(isinstance(v, str) for v in content.values()):
        raise ValueError("expected an object whose values are texts")
    for text in (*content, *content.values()):
        text.encode()  # half a surrogate pair can be written in JSON, but not sent
    return content


def _error_line(error: Exception) -> str:
    text = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
    return text.splitlines()[0]
