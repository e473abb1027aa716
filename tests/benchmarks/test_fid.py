"""The benchmark of FID takes turns with every side's process."""

import pytest

from benchmarks import fid


@pytest.mark.slow
def test_every_side_is_measured_in_a_process_of_its_own(tmp_path):
    for package in ("torchvision", "pytorch_fid"):
        pytest.importorskip(package, reason="it writes the weights, or is compared with")
    fid.write_images(tmp_path, 4)
    sides = [*fid.OURS, "pytorch-fid"]
    found = fid.measure(sides, str(tmp_path), images=4, batch_size=2, rounds=1)
    rows = fid.report(found, images=4)
    assert [row["side"] for row in rows] == sides
    assert all(min(turn) > 0 for turns in found.values() for turn in turns)
