"""`python -m coalmine_router`: how the router starts its own processes."""

from coalmine_router.cli import router

router()
