"""Small files are written whole or not at all, and JSON is what other programs read."""

import json
import math

import pytest

from inception.errors import UserError
from inception.files import is_local, read_json, write_json, write_text


def test_what_is_not_finite_is_null_for_json_knows_no_nan(tmp_path):
    write_json(tmp_path / "a.json", {"ema": {"loss": math.nan, "bins": (math.inf, 0.5)}})
    assert json.loads((tmp_path / "a.json").read_text()) == {
        "ema": {"loss": None, "bins": [None, 0.5]}
    }
    assert read_json(tmp_path / "a.json")["ema"]["bins"] == [None, 0.5]
    assert read_json(tmp_path / "b.json") is None


def test_a_failed_write_leaves_the_old_file(tmp_path):
    write_text(tmp_path / "new" / "a.txt", "old")
    (tmp_path / "new" / "a.partial").mkdir()  # in the way
    with pytest.raises(UserError, match=r"a\.txt.*Is a directory"):
        write_text(tmp_path / "new" / "a.txt", "new")
    assert (tmp_path / "new" / "a.txt").read_text() == "old"


def test_buckets_are_not_local():
    assert is_local("/tmp/run")
    assert not is_local("gs://bucket/run")
