"""`python -m coalmine_router`: how the router starts its own processes."""

from coalmine.process.early_signals import end_at_signals, remember_hangup
from coalmine.process.standard_streams import open_standard_streams


def main() -> None:
    """Run the command line."""
    end_at_signals()
    remember_hangup()
    open_standard_streams()
    from coalmine_router.cli import router  # noqa: PLC0415 - not before signals are seen to

    router()


if __name__ == "__main__":
    main()
