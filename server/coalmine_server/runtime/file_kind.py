"""The kind of a file that isn't TorchScript, and how to make one of it. Pure.

Sources: PyTorch's torch.save, torch.export.save and torch.jit.save archives; the magic numbers of
the other formats' specifications.
"""

import io
import pickletools
import zipfile
from collections.abc import Sequence
from typing import Final

_TRACE: Final = "torch.jit.trace(model, example).save('model.pt')"
_STATE_DICT: Final = f"a state dict: load it into its module, then {_TRACE}"
_PICKLE: Final = f"a pickle: load it in Python; of a torch module, then {_TRACE}"
_EXPORTED: Final = f"an exported program (torch.export): of the module it came from, {_TRACE}"
_CUT_OFF: Final = "a zip archive that is damaged or cut off: copy it again, whole"
_OTHER_ZIP: Final = f"a zip archive that holds no module: {_TRACE} writes one that does"

_HEAD_BYTES: Final = 4_096
_PICKLE_BYTES_MAX: Final = 64 * 1024  # enough for the first class that it names
_ENTRIES_MAX: Final = 100_000

# A file that begins so is this.
_MAGIC: Final[Sequence[tuple[bytes, str]]] = (
    (b"\x89HDF\r\n\x1a\n", "an HDF5 file, as Keras writes: coalmine serves TorchScript alone"),
    (b"GGUF", "a GGUF file, of llama.cpp: coalmine serves TorchScript alone"),
    (b"\x1f\x8b", "a gzip file: unpack it"),
    (b"version https://git-lfs", "a pointer of Git LFS: fetch the file itself by `git lfs pull`"),
    (b"<!DOCTYPE", "an HTML page: a download that went wrong"),
    (b"<html", "an HTML page: a download that went wrong"),
)
_SAFETENSORS: Final = f"safetensors, which holds weights alone: load them into a module, {_TRACE}"
_ONNX: Final = f"an ONNX model: of the module that it was exported from, {_TRACE}"


def kind_of(data: bytes) -> str:
    """Return the kind of `data`, and what to do with it; "" where it is unknown."""
    if not data:
        return "it is empty"
    if data.startswith(b"PK\x03\x04"):
        return _archive_kind(data)
    if data.startswith(b"\x80"):
        return _pickle_kind(data[:_PICKLE_BYTES_MAX])
    return _kind_by_head(data[:_HEAD_BYTES])


def _kind_by_head(head: bytes) -> str:
    for magic, kind in _MAGIC:
        if head.lower().startswith(magic.lower()):
            return kind
    if head[8:10] in {b'{"', b"{ "}:
        return _SAFETENSORS
    # Field 1, the version of the format, then field 2 or further on, who wrote it.
    if head[:1] == b"\x08" and (b"onnx" in head or b"pytorch" in head):
        return _ONNX
    return ""


def _archive_kind(data: bytes) -> str:
    """Name a zip archive by the names of its members; nothing is unpacked."""
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            names = [each.filename for each in archive.infolist()[:_ENTRIES_MAX]]
            if any(_is_exported(each) for each in names):
                return _EXPORTED
            if any(each.endswith("/constants.pkl") for each in names):
                return ""  # TorchScript: torch knows better what is wrong with it
            weights = next((each for each in names if each.endswith("/data.pkl")), "")
            return _pickle_kind(_member_start(archive, weights)) if weights else _OTHER_ZIP
    except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError, RuntimeError):
        return _CUT_OFF


def _is_exported(name: str) -> bool:
    return name.endswith(("/archive_format", "serialized_exported_program.json"))


def _member_start(archive: zipfile.ZipFile, name: str) -> bytes:
    with archive.open(name) as file:
        return file.read(_PICKLE_BYTES_MAX)


def _pickle_kind(data: bytes) -> str:
    """Name a pickle by the first class that it asks for; it is read, never run."""
    words: list[str] = []
    try:
        for opcode, value, _ in pickletools.genops(data):
            if opcode.name == "GLOBAL":
                return _kind_by_class(str(value).replace(" ", "."))
            if opcode.name == "STACK_GLOBAL" and len(words) > 1:
                return _kind_by_class(".".join(words[-2:]))
            if isinstance(value, str):
                words.append(value)
    except ValueError:  # cut at the bound, or no pickle after all
        pass
    return _PICKLE


def _kind_by_class(name: str) -> str:
    if name in {"collections.OrderedDict", "torch._utils._rebuild_tensor_v2"}:
        return _STATE_DICT
    return f"a pickle of {name[:100]!r}: load it in Python; of a torch module, then {_TRACE}"
