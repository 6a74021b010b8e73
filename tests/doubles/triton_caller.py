"""A service of our users: tritonclient alone. `python triton_caller.py ADDR FOLDER`.

Sends every held-out image and prints, as JSON, how far the answers lie from those of local torch.
"""

import json
import sys
from pathlib import Path

import numpy as np
import tritonclient.grpc as triton


def main(address: str, folder: Path) -> None:
    client = triton.InferenceServerClient(address)
    pixels = np.load(folder / "pixels.npy")
    logits = np.load(folder / "stable.logits.npy")
    labels = np.load(folder / "stable.label.npy")
    worst, wrong = 0.0, 0
    for image, (expected, label) in zip(pixels, zip(logits, labels, strict=True), strict=True):
        answer = infer(client, image[None])
        worst = max(worst, float(np.abs(answer.as_numpy("logits")[0] - expected).max()))
        wrong += int(answer.as_numpy("label")[0, 0] != label)
    print(json.dumps({"images": len(pixels), "worst": worst, "wrong_labels": wrong}))


def infer(client: triton.InferenceServerClient, rows: np.ndarray) -> triton.InferResult:
    pixels = triton.InferInput("pixels", rows.shape, "FP32")
    pixels.set_data_from_numpy(rows)
    return client.infer("digits", [pixels])


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]))
