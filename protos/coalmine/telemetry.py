"""The names that spans, metrics and metadata go by."""

from typing import Final

ROUTER_SERVICE: Final = "coalmine-router"
SERVER_SERVICE: Final = "coalmine-server"

# ---------------------------------------------------------------- metadata keys (contract)

VARIANT_KEY: Final = "x-coalmine-variant"
REVISION_KEY: Final = "x-coalmine-revision"
ORIGIN_KEY: Final = "x-coalmine-origin"
REQUESTED_VERSION_KEY: Final = "x-coalmine-requested-version"
ORIGIN_ROUTER: Final = "router"

# ---------------------------------------------------------------- span attributes (contract)

ROUTE: Final = "coalmine.route"
VARIANT: Final = "coalmine.variant"
ASSIGNMENT: Final = "coalmine.assignment"
# The variant that was assigned, where another answered instead.
CHOSEN: Final = "coalmine.chosen"
# ORIGIN_ROUTER where the router itself made the error; true where it made it before any call.
ORIGIN: Final = "coalmine.origin"
REFUSED: Final = "coalmine.refused"
# Why, where a limit was reached or nobody could be called.
TURNED_AWAY: Final = "coalmine.turned_away"
# True on every call and request that failed: no store need be asked for its own mark of an error.
FAILED: Final = "coalmine.failed"
# Of the request alone: its trace goes on with copies and comparisons.
DURATION_MS: Final = "coalmine.duration_ms"
REVISION: Final = "coalmine.revision"
ROLE: Final = "coalmine.role"
BACKEND: Final = "coalmine.backend"
MODEL: Final = "coalmine.model"
MODEL_VERSION: Final = "coalmine.model.version"
REQUEST_ID: Final = "coalmine.request.id"
BATCH_SIZE: Final = "coalmine.batch.size"
BATCH_LINKS_LEFT_OUT: Final = "coalmine.batch.links_left_out"

# By what the route tells its evidence apart, such as a tenant.
SEGMENT: Final = "coalmine.segment"
# As long as models and rules stay the same, evidence adds up: its number.
TRIAL: Final = "coalmine.trial"
# The verdict that changed by this request.
TIPPED: Final = "coalmine.tipped"
# With a candidate's name behind it: the worst outcome of its comparisons in the request.
CANDIDATE_PREFIX: Final = "coalmine.candidate."

COMPARE_OUTCOME: Final = "coalmine.compare.outcome"
COMPARE_REFERENCE: Final = "coalmine.compare.reference"
COMPARE_CANDIDATE: Final = "coalmine.compare.candidate"
COMPARE_KIND: Final = "coalmine.compare.kind"
COMPARE_MAX_ABS_DIFF: Final = "coalmine.compare.max_abs_diff"
COMPARE_DIFF_BUCKET: Final = "coalmine.compare.diff_bucket"
COMPARE_OUTPUTS_DIFFERING: Final = "coalmine.compare.outputs_differing"
COMPARE_ROLE: Final = "coalmine.compare.role"
COMPARE_REFERENCE_VERSION: Final = "coalmine.compare.reference_version"
COMPARE_CANDIDATE_VERSION: Final = "coalmine.compare.candidate_version"
COMPARE_REFERENCE_ADDRESS: Final = "coalmine.compare.reference_address"
COMPARE_CANDIDATE_ADDRESS: Final = "coalmine.compare.candidate_address"
COMPARE_ROWS: Final = "coalmine.compare.rows"
COMPARE_ROWS_MISMATCH: Final = "coalmine.compare.rows_mismatch"
# The outcome of the reference beside its own second answer.
COMPARE_NOISE: Final = "coalmine.compare.noise"
# With a power of ten behind it: set where the greatest difference is larger.
COMPARE_OVER_PREFIX: Final = "coalmine.compare.over."
# With an output's name behind it: set where that output differs.
COMPARE_OUTPUT_PREFIX: Final = "coalmine.compare.output."

# One event for each output that differs, under the compare span.
DIFFERENCE_EVENT: Final = "coalmine.compare.difference"
DIFFERENCE_NAME: Final = "name"
DIFFERENCE_KIND: Final = "kind"
DIFFERENCE_INDEX: Final = "index"
DIFFERENCE_EXPECTED: Final = "expected"
DIFFERENCE_ACTUAL: Final = "actual"
DIFFERENCE_ROWS: Final = "rows"
DIFFERENCE_ROWS_MISMATCH: Final = "rows_mismatch"
DIFFERENCE_MAX_ABS_DIFF: Final = "max_abs_diff"
DIFFERENCE_RULE: Final = "rule"
DIFFERENCE_SCORE: Final = "score"

# A trace of its own: a verdict that became another, linked to the request that tipped it.
VERDICT: Final = "coalmine.verdict"
VERDICT_BEFORE: Final = "coalmine.verdict.before"
VERDICT_REASON: Final = "coalmine.verdict.reason"
# The gate that decided, where one did.
VERDICT_GATE: Final = "coalmine.verdict.gate"
VERDICT_TRACE_ID: Final = "coalmine.verdict.trace_id"
# Comparisons by outcome, and the rate of mismatches with the interval that holds it.
VERDICT_MATCH: Final = "coalmine.verdict.match"
VERDICT_MISMATCH: Final = "coalmine.verdict.mismatch"
VERDICT_ERROR: Final = "coalmine.verdict.error"
VERDICT_SKIPPED: Final = "coalmine.verdict.skipped"
VERDICT_RATE: Final = "coalmine.verdict.rate"
VERDICT_RATE_LOW: Final = "coalmine.verdict.rate_low"
VERDICT_RATE_HIGH: Final = "coalmine.verdict.rate_high"
VERDICT_ALLOWED_RATE: Final = "coalmine.verdict.allowed_rate"
# With a gate's name behind it: its finding. One event for each gate says why.
GATE_PREFIX: Final = "coalmine.gate."
GATE_EVENT: Final = "coalmine.gate"

# Semantic conventions: RPC (https://opentelemetry.io/docs/specs/semconv/rpc/) and feature flags.
RPC_SYSTEM: Final = "rpc.system.name"
RPC_METHOD: Final = "rpc.method"
RPC_STATUS: Final = "rpc.status_code"
SERVER_ADDRESS: Final = "server.address"
SERVER_PORT: Final = "server.port"
FLAG_KEY: Final = "feature_flag.key"
FLAG_VARIANT: Final = "feature_flag.result.variant"
FLAG_VERSION: Final = "feature_flag.version"
