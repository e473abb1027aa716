"""Small files are written whole or not at all, and JSON is what other programs read."""

import json
import math

import pytest

from inception.errors import UserError
from inception.workdir.files import (
    LiteralPath,
    read_json,
    write_json,
    write_text,
)


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


def test_a_path_is_searched_below_whatever_it_is_called(tmp_path):
    folder = LiteralPath(tmp_path / "lr=[0.1]*")
    (folder / "in").mkdir(parents=True)
    for name in ("a_1", "a_2", "b"):
        (folder / "in" / name).touch()
    assert sorted(path.name for path in (folder / "in").glob("a_*")) == ["a_1", "a_2"]
    assert sorted(path.name for path in folder.glob("in/a_[2]")) == ["a_2"]
    assert list(folder.glob("absent/*")) == []
    assert isinstance(next(iter(folder.glob("*"))), LiteralPath)
