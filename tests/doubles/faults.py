"""What a repository can have wrong: each breaks a good model, and is told by a file and a cause."""

import os
import pickle
import zipfile
from collections.abc import Callable
from pathlib import Path

import torch

from tests.models import Linear, config, write_model

Break = Callable[[Path], object]  # gets the model's folder


def model_file(folder: Path) -> Path:
    return folder / "1" / "model.pt"


def config_file(folder: Path) -> Path:
    return folder / "config.yaml"


def unhashed(folder: Path) -> Path:
    """Let any file be taken, as from somebody who wrote the config by hand."""
    text = config_file(folder).read_text()
    lines = [line for line in text.splitlines() if "'1':" not in line and line != "sha256:"]
    config_file(folder).write_text("\n".join(lines) + "\n")
    return model_file(folder)


# ---------------------------------------------------------------- the model's file


def one_bit_flipped(folder: Path) -> None:
    data = bytearray(model_file(folder).read_bytes())
    data[len(data) // 2] ^= 1
    model_file(folder).write_bytes(data)


def cut_off(folder: Path) -> None:
    data = unhashed(folder).read_bytes()
    model_file(folder).write_bytes(data[: len(data) // 2])


def empty(folder: Path) -> None:
    unhashed(folder).write_bytes(b"")


def a_pickle(folder: Path) -> None:
    unhashed(folder).write_bytes(pickle.dumps({"weights": [1.0]}))


def weights_alone(folder: Path) -> None:
    torch.save({"weights": torch.zeros(2)}, unhashed(folder))


def a_zip(folder: Path) -> None:
    with zipfile.ZipFile(unhashed(folder), "w") as file:
        file.writestr("a", "b")


def a_folder(folder: Path) -> None:
    model_file(folder).unlink()
    model_file(folder).mkdir()


def missing(folder: Path) -> None:
    model_file(folder).unlink()


def a_pipe(folder: Path) -> None:
    model_file(folder).unlink()
    os.mkfifo(model_file(folder))


def a_link_to_a_device(folder: Path) -> None:
    model_file(folder).unlink()
    model_file(folder).symlink_to("/dev/zero")


def a_link_to_itself(folder: Path) -> None:
    model_file(folder).unlink()
    model_file(folder).symlink_to(model_file(folder))


# ---------------------------------------------------------------- folders and config


def a_version_elsewhere(folder: Path) -> None:
    elsewhere = folder.parents[1] / "elsewhere"
    (folder / "1").rename(elsewhere)
    (folder / "1").symlink_to(elsewhere)


def no_version(folder: Path) -> None:
    model_file(folder).unlink()
    (folder / "1").rmdir()


def a_model_elsewhere(folder: Path) -> None:
    elsewhere = folder.parents[1] / "another-model"
    folder.rename(elsewhere)
    folder.symlink_to(elsewhere)


def a_pipe_for_a_config(folder: Path) -> None:
    config_file(folder).unlink()
    os.mkfifo(config_file(folder))


def a_folder_for_a_config(folder: Path) -> None:
    config_file(folder).unlink()
    config_file(folder).mkdir()


def no_yaml(folder: Path) -> None:
    config_file(folder).write_text("platform: [\n")


def binary(folder: Path) -> None:
    config_file(folder).write_bytes(b"\xff\xfe\x00\x01")


def a_key_twice(folder: Path) -> None:
    lines = ["platform: pytorch_torchscript", "max_batch_size: 4", "max_batch_size: 8"]
    config_file(folder).write_text("\n".join(lines))


def another_platform(folder: Path) -> None:
    text = config_file(folder).read_text()
    config_file(folder).write_text(text.replace("pytorch_torchscript", "onnxruntime_onnx"))


def a_label_that_leads_nowhere(folder: Path) -> None:
    with config_file(folder).open("a") as file:
        file.write("labels: {stable: 7}\n")


def another_signature(folder: Path) -> None:
    unhashed(folder)
    text = config_file(folder).read_text()
    config_file(folder).write_text(text.replace("- 10", "- 11"))


FAULTS: dict[Break, tuple[str, str]] = {
    one_bit_flipped: ("1/model.pt", "expected sha256 "),
    cut_off: ("1/model.pt", "not a TorchScript file: "),
    empty: ("1/model.pt", "not a TorchScript file: "),
    a_pickle: ("1/model.pt", "not a TorchScript file: "),
    weights_alone: ("1/model.pt", "not a TorchScript file: "),
    a_zip: ("1/model.pt", "not a TorchScript file: "),
    a_folder: ("1/model.pt", "is a directory"),
    missing: ("1/model.pt", "no such file or directory"),
    a_pipe: ("1/model.pt", "not a regular file"),
    a_link_to_a_device: ("1/model.pt", "leads out of the repository, to /dev/zero"),
    a_link_to_itself: ("1/model.pt", "too many levels of symbolic links"),
    a_version_elsewhere: ("1/model.pt", "leads out of the repository, to "),
    a_model_elsewhere: ("", "leads out of the repository, to "),
    a_pipe_for_a_config: ("config.yaml", "not a regular file"),
    a_folder_for_a_config: ("config.yaml", "is a directory"),
    no_version: ("", "no VERSION/model.pt in it"),
    no_yaml: ("config.yaml", "not YAML: line 2: "),
    binary: ("config.yaml", "not a text file"),
    a_key_twice: ("config.yaml", "not YAML: line 3: key 'max_batch_size' is there twice"),
    another_platform: ("config.yaml", "platform: input should be 'pytorch_torchscript', got 'onnx"),
    a_label_that_leads_nowhere: ("config.yaml", "labels.stable: leads to version 7, but "),
    another_signature: (
        "1/model.pt",
        "model 'm' version 1: failed on zeros, 'pixels' FP32 [1, 64]",
    ),
}


def broken(root: Path, name: str, fault: Break) -> Path:
    """Write a model and break it; return the file that is to blame."""
    folder = write_model(root, name, {1: Linear()}, config())
    fault(folder)
    return folder / FAULTS[fault][0] if FAULTS[fault][0] else folder
