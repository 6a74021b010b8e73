"""`python -m coalmine_client`: the `coalmine` program."""

from coalmine_client.cli import main

main()
