"""Package `coalmine.control.v1`, generated."""
