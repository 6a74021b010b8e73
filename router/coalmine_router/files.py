"""The files that router.yaml names, read as the processes will read them: before they start."""

from coalmine.credentials import server_credentials
from coalmine.tokens import read_tokens
from coalmine_router.channels import BackendFiles
from coalmine_router.config.file import RouterConfig


def check_files(config: RouterConfig) -> None:
    """Read certificates, keys and tokens. Raises StartError for the first that is wrong."""
    for listener in (config, config.control):
        if listener.tls is not None:
            server_credentials(listener.tls.files())
        if listener.tokens is not None:
            read_tokens(listener.tokens)
    for backend in config.table().backends:
        BackendFiles(backend)
