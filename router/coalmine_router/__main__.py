"""`python -m coalmine_router`: how the router starts its own processes."""

from coalmine.standard_streams import open_standard_streams
from coalmine_router.cli import router

open_standard_streams()
router()
