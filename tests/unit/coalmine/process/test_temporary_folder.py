"""Temporary folders: private, gone afterwards, and one line where there can't be any."""

import errno
import os

import pytest

from coalmine.errors import StartError
from coalmine.process.private_folder import make_temporary_folder, temporary_folder


def test_it_is_for_this_user_alone_and_gone_afterwards() -> None:
    with temporary_folder("coalmine-test-") as folder:
        assert folder.name.startswith("coalmine-test-")
        assert folder.stat().st_mode & 0o077 == 0
        (folder / "kept").write_text("-")
    assert not folder.exists()


@pytest.mark.parametrize("number", [errno.ENOENT, errno.EROFS, errno.ENOSPC])
def test_where_none_can_be_made_one_line_says_what_to_do(number: int) -> None:
    def refuse(prefix: str) -> str:
        raise OSError(number, os.strerror(number), prefix)

    with pytest.raises(StartError) as caught:
        make_temporary_folder("coalmine-", refuse)
    assert "\n" not in str(caught.value)
    assert str(caught.value).startswith("no temporary folder can be made: ")
    assert str(caught.value).endswith("or set TMPDIR")
