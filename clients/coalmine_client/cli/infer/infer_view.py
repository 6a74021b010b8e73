"""How answers of `coalmine infer` look, as text and as JSON."""

from typing import Any

import numpy as np
from rich.console import RenderableType
from rich.text import Text

from coalmine.shown_value import printable
from coalmine.tensors import Tensor, datatype_of
from coalmine_client.cli.console import BAD, FAINT, STRONG, add_row, counts_text, group, line, table
from coalmine_client.cli.infer.bulk import CallTally
from coalmine_client.cli.json_values import number_json
from coalmine_client.cli.mismatch_bodies import tensor_json, text_of
from coalmine_client.cli.percents import rate_text
from coalmine_client.client import Answer, Array


def answer_view(answer: Answer, ms: float) -> RenderableType:
    """Return who answered and how fast, then each output."""
    facts = [f"version {answer.model_version or '-'}"]
    if answer.variant:
        facts.append(f"variant {answer.variant}, revision {answer.revision}")
    if answer.id:
        facts.append(f"id {answer.id}")
    facts.append(f"{ms:.2f} ms")
    parts: list[RenderableType] = [line((answer.model_name, STRONG), "   ", " · ".join(facts))]
    for name, array in answer.outputs.items():
        parts += [
            line((name, STRONG), (f"   {datatype_of(array.dtype)} {list(array.shape)}", FAINT)),
            Text(_elements_text(array)),
        ]
    return group(parts)


def _elements_text(array: Array) -> str:
    """Return the elements as numpy writes them, in full below a thousand."""
    if array.dtype.kind == "O":
        array = np.array([printable(text_of(each)) for each in array.ravel()]).reshape(array.shape)
    return np.array2string(array, separator=", ", threshold=1_000, max_line_width=96)


def answer_json(answer: Answer, ms: float) -> dict[str, Any]:
    """Return {model_name, model_version, id, variant, revision, latency_ms, outputs}."""
    return {
        "model_name": answer.model_name,
        "model_version": answer.model_version,
        "id": answer.id,
        "variant": answer.variant,
        "revision": answer.revision,
        "latency_ms": ms,
        "outputs": {
            name: tensor_json(Tensor(name, datatype_of(array.dtype), array))
            for name, array in answer.outputs.items()
        },
    }


def tally_view(tally: CallTally, concurrency: int) -> RenderableType:
    """Return the share of each variant and version, the latencies and the statuses."""
    calls_s = tally.calls / tally.took_s if tally.took_s else 0.0
    rows = table("variant", "version", ">calls", ">share")
    for (variant, version), count in sorted(tally.answered.items()):
        add_row(rows, variant or "-", version or "-", f"{count:,}", rate_text(count, tally.calls))
    for variant, count in sorted(tally.failed.items()):
        add_row(rows, variant or "-", ("failed", BAD), f"{count:,}", rate_text(count, tally.calls))
    return group(
        [
            line(
                (f"{tally.calls:,} calls", STRONG),
                f" in {tally.took_s:.2f} s, {calls_s:,.0f} a second, {concurrency} at a time",
            ),
            rows,
            line(("latency  ", FAINT), _latency_text(tally)),
            line(
                ("status   ", FAINT), (counts_text(tally.by_status), BAD if tally.failures else "")
            ),
        ]
    )


def _latency_text(tally: CallTally) -> str:
    if not tally.latencies_ms:
        return "-"
    return f"p50 {tally.percentile_ms(50):.2f} ms · p99 {tally.percentile_ms(99):.2f} ms"


def tally_json(tally: CallTally) -> dict[str, Any]:
    """Return {calls, took_s, by_status, latency_p50_ms, latency_p99_ms, answered, failed}."""
    return {
        "calls": tally.calls,
        "took_s": tally.took_s,
        "by_status": dict(sorted(tally.by_status.items())),
        "latency_p50_ms": number_json(tally.percentile_ms(50)),
        "latency_p99_ms": number_json(tally.percentile_ms(99)),
        "answered": [
            {"variant": variant, "model_version": version, "calls": count}
            for (variant, version), count in sorted(tally.answered.items())
        ],
        "failed": [
            {"variant": variant, "calls": count} for variant, count in sorted(tally.failed.items())
        ],
    }
