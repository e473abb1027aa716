"""Plans for chips that are not here: what the rows say, with a stand-in for the compiler."""

from collections import Counter

import jax
import pytest

import inception
from inception import command_line
from inception.errors import ConfigError, UserError
from inception.plan import __main__ as command
from inception.plan import aot, rows, table, topology
from inception.plan.traffic import Collective

GIB = 2**30


def _compiled(images: int, gib: float = 1.0) -> aot.Compiled:
    """A program whose memory is 1 GiB and `gib` for 32 images."""
    return aot.Compiled(
        images=images,
        seconds=60.0,
        constant_bytes=GIB,
        temporary_bytes=int(gib * GIB * images / 32),
        hbm_bytes=Counter(
            {("Mixed_5b", "forward"): images * 200_000_000, ("step", ""): images * 10**7}
        ),
        collectives=[Collective("all-reduce", 60_000_000, 300, "jit(step)")],
        kernels=1000,
    )


@pytest.fixture
def plan(monkeypatch):
    """Makes a plan whose programs take `gib` for 32 images; what is too large does not fit."""

    def make(name: str, *overrides: str, gib: float = 1.0) -> rows.Plan:
        config = inception.load_config("configs/v3.py", ["dtype=bfloat16", *overrides])
        made = rows.Plan(config, topology.parse_topology(name))

        def compile_for(topology, config, images, num_classes, *, quick=False):
            program = _compiled(images, gib)
            if program.peak_bytes > topology.chip.memory:
                raise aot.OutOfMemory("RESOURCE_EXHAUSTED: Ran out of memory")
            return program

        monkeypatch.setattr(rows, "compile_for", compile_for)
        made.__dict__["data"] = rows.Data(*rows.IMAGENET, 1000.0, measured=False)
        return made

    return make


def _rows(plan: rows.Plan) -> dict:
    return dict(rows.rows(plan))


def test_a_plan_that_fits(plan):
    found = _rows(plan("v5e:4x4", "batch_size=1536"))
    assert list(found) == [
        *("topology", "compiler", "memory", "collectives", "arithmetic", "traffic", "interconnect"),
        *("expected speed", "duration", "host"),
    ]
    assert {finding.status for finding in found.values()} == {"PASS"}
    assert "16 chip(s), 1 x 96 images" in found["topology"].text
    assert "4.00 of 16.0 GiB" in found["memory"].text  # 1 GiB + 3 groups
    assert "up to 416 images" in found["memory"].text  # 13 groups in the 13.4 GiB that are left
    assert "all-reduce of 60.00 MB in 300 array(s)" in found["collectives"].text
    assert "3,900 images/s a chip: 210 MB an image at 819 GB/s" in found["traffic"].text
    assert "200" in found["traffic"].text


def test_what_does_not_fit_fails_and_says_what_would(plan):
    made = plan("v5e:2x2", "batch_size=2048")  # 16 groups on each
    found = _rows(made)["memory"]
    assert found.status == "FAIL"
    assert "17.00 of 16.0 GiB" in found.text
    assert "up to 416 images" in found.text
    assert [program.images for program in made.programs] == [256, 32]


def test_if_not_even_one_group_fits_the_rest_is_left_out(plan):
    found = _rows(plan("v5e:2x2", "batch_size=128", gib=20))
    assert [name for name, finding in found.items() if finding.status == "FAIL"] == ["compiler"]
    assert list(found) == ["topology", "compiler"]


def test_what_the_compiler_refuses_is_a_row(plan, monkeypatch):
    made = plan("v5e:2x2", "batch_size=512")

    def refuse(*args, **kwargs):
        raise jax.errors.JaxRuntimeError("UNIMPLEMENTED: no such thing\nmore")

    monkeypatch.setattr(rows, "compile_for", refuse)
    assert _rows(made)["compiler"] == rows.Finding("UNIMPLEMENTED: no such thing", status="FAIL")


def test_micro_batches_share_memory_and_add_up_in_time(plan):
    whole, parts = plan("v5e:2x2", "batch_size=512"), plan("v5e:2x2", "batch_size=1024")
    parts.config.accumulation_steps = 2
    parts = rows.Plan(parts.config, parts.topology)
    parts.__dict__["data"] = whole.data
    assert parts.images == whole.images == 128
    assert parts.step(4).traffic == pytest.approx(2 * whole.step(4).traffic)
    assert parts.peak_bytes(128) == whole.peak_bytes(128)


def test_float32_is_warned_of(plan):
    assert _rows(plan("v5e:2x2", "dtype=float32", "batch_size=512"))["topology"].status == "WARN"


def test_images_that_do_not_split_are_refused_before_anything_is_compiled(plan):
    with pytest.raises(ConfigError, match="batch_size=100"):
        plan("v5e:4x4", "batch_size=100")


@pytest.mark.parametrize(("name", "wheel"), [("v5e:2x2", "jax[tpu]"), ("h100", "jax[cuda13]")])
def test_an_absent_compiler_is_one_sentence(monkeypatch, capsys, name, wheel):
    monkeypatch.setattr(topology.importlib.util, "find_spec", lambda module: None)
    argv = ["--config=configs/v3.py", f"--topology={name}"]
    assert command_line.run(lambda: command.main(argv)) == 1
    error = capsys.readouterr().err
    assert f'pip install "{wheel}"' in error
    assert len(error.splitlines()) == 1


@pytest.mark.parametrize(("batch", "status", "last"), [(512, 0, "fit"), (2048, 1, "not fit")])
def test_the_command(plan, monkeypatch, capsys, tmp_path, batch, status, last):
    plan("v5e:2x2", "batch_size=512")  # whose compiler the command is given
    monkeypatch.setattr(command, "check_installed", lambda topology: None)
    argv = ["--config=configs/v3.py", "--topology=v5e:2x2", f"--config.data_dir={tmp_path}"]
    assert command.main([*argv, f"--config.batch_size={batch}"]) == status
    text = capsys.readouterr().out
    assert text.endswith(f"The run would {last}.\n")
    assert "1,281,167 images" in text
    assert f"compiling for v5e:2x2, {batch // 4} images" in text


def test_the_table_is_written_between_its_marks(plan, tmp_path):
    file = tmp_path / "scaling.md"
    file.write_text("before\n<!-- v5e -->\nold\n<!-- end of v5e -->\nafter\n")
    made = plan("v5e:2x2", "batch_size=512")
    for _ in range(2):  # again, it replaces itself
        table.write_table(made, str(file))
    text = file.read_text()
    assert text.startswith(
        "before\n<!-- v5e -->\nCompiled for v5e:2x2 with 128 images on each chip"
    )
    assert text.endswith("<!-- end of v5e -->\nafter\n")
    assert "old" not in text
    lines = [line.split("|")[1:-1] for line in text.splitlines() if line.startswith("|")]
    assert [line[0].strip() for line in lines[2:]] == [
        "1",
        "4",
        "8",
        "16",
        "32",
        "64",
        "128",
        "256",
    ]
    assert lines[-1][1].strip() == "32,768"
    with pytest.raises(UserError, match="v6e"):
        table.write_table(plan("v6e:2x2", "batch_size=512"), str(file))
