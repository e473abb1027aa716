"""What is on a disk, and what is an address in a bucket."""

from pathlib import Path

import pytest

from inception.data.paths import is_local, local_path
from inception.errors import UserError


@pytest.mark.parametrize("path", ["/tmp/run", "run", "~/lr=0.1:/a", "a/b:/c", ""])
def test_paths_on_a_disk_are_local(path):
    assert is_local(path)


@pytest.mark.parametrize("path", ["gs://bucket/a", "gs:/bucket/a", "s3://bucket/a"])
def test_what_has_to_be_on_a_disk_is_not_an_address(path):
    """Also not with one slash, which is what pathlib makes of an address."""
    assert not is_local(path)
    with pytest.raises(UserError, match=f"{path} is in a bucket"):
        local_path(path)


def test_a_path_may_begin_with_the_home_of_nobody():
    assert local_path("~nobody-of-this-name/x") == Path("~nobody-of-this-name/x")
    assert local_path("~/x") == Path.home() / "x"
