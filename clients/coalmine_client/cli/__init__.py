"""The `coalmine` program: the operator's verbs, and the way to its siblings' groups."""

import os


def main() -> None:
    """Run the program, and exit."""
    # gRPC's core, which reads this when it is imported, would write lines of its own beside the
    # one that a failed verb owes.
    os.environ.setdefault("GRPC_VERBOSITY", "ERROR")
    from coalmine_client.cli.root import run  # noqa: PLC0415 - not before the line above

    run()
