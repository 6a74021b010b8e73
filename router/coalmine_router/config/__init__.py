"""router.yaml: pydantic at the edge, frozen values inside."""
