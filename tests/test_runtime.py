"""What programs set for their process, and that importing the package sets none of it."""

from tests import processes
from tests.conftest import TINY

_SETTINGS = """
import gc, json, logging, os, sys
import jax
from inception import runtime

def settings():
    return [
        jax.config.values["jax_compilation_cache_dir"],
        [len(logging.getLogger(name).filters) for name in ("absl", "asyncio")],
        [logging.getLogger(name).level for name in ("gcsfs", "tensorflow")],
        sys.unraisablehook is sys.__unraisablehook__,
        [os.environ.get(name) for name in ("TF_CPP_MIN_LOG_LEVEL", "TF_ENABLE_ONEDNN_OPTS")],
        gc.get_threshold()[0],
        jax.config.values["jax_cpu_enable_async_dispatch"],
    ]

before = settings()
import inception.data.prepare, inception.training.loop, inception.workdir.identity
from inception.weights.export import saved_model
from inception.distributed import sharding
sharding.make_mesh()
imported = settings()
for _ in range(2):
    runtime.configure()
print(json.dumps([before, imported, settings()]))
"""


def test_only_configure_changes_the_process(monkeypatch):
    for name in ("JAX_COMPILATION_CACHE_DIR", "TF_CPP_MIN_LOG_LEVEL", "TF_ENABLE_ONEDNN_OPTS"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", "/nowhere")
    before, imported, configured = processes.result(processes.start(_SETTINGS))
    assert imported == before
    cache, filters, levels, is_default_hook, environment, *untuned = configured
    assert cache == "/nowhere/.cache/inception"
    assert [new - old for new, old in zip(filters, before[1], strict=True)] == [1, 1]
    assert levels == [50, 40]
    assert not is_default_hook
    assert environment == ["2", "0"]
    assert untuned == before[-2:]


_REPEATED = """
import logging, sys
from inception import runtime

class Late:
    def __del__(self):
        raise RuntimeError("Event loop is closed" if self.quiet else "something else")

def report(path, quiet):
    late = Late()
    late.quiet = quiet
    del late
    logger = logging.getLogger("absl")
    record = logger.makeRecord("absl", 40, path, 1, path, (), (ValueError, ValueError(), None))
    logger.handle(record)
    logging.getLogger("asyncio").error("exception was never retrieved" if quiet else "other")

logging.basicConfig()
runtime.configure()
report("/site-packages/orbax/a.py", quiet=True)
print("quiet", file=sys.stderr)
report("/site-packages/other/a.py", quiet=False)
"""


def test_only_errors_that_are_also_raised_are_silenced():
    process = processes.start(_REPEATED, stderr=True)
    output, _ = process.communicate()
    silenced, reported = output.split("quiet\n")
    assert silenced == ""
    for text in ("RuntimeError: something else", "other/a.py", "ERROR:asyncio:other"):
        assert text in reported


_HOMELESS = """
import json, pwd, sys
from pathlib import Path

def nobody(number):
    raise KeyError(number)

pwd.getpwuid = nobody
try:
    Path.home()
except RuntimeError:
    import jax, numpy as np
    import inception
    from inception import runtime
    from inception.distributed import sharding
    from inception.data.stream import predict_stream
    from inception.data.preprocessing import Preprocessing
    from inception.training.loop import Trainer
    from inception.data.sources import ArraySource

    runtime.configure()
    pixels = np.zeros((16, 8, 8, 1), np.uint8)
    source = ArraySource(pixels, np.arange(16))
    config = inception.load_config("configs/digits.py", sys.argv[1:])
    trainer = Trainer(config, "run", source, source)
    batches = predict_stream(pixels, Preprocessing(75), batch_size=16)
    (batch,) = sharding.to_devices(trainer.mesh, batches)
    cache = jax.config.jax_compilation_cache_dir
    print(json.dumps([trainer.mesh.size, batch["image"].shape, cache]))
"""


def test_nobody_needs_a_home_directory(monkeypatch):
    for name in ("HOME", "JAX_COMPILATION_CACHE_DIR"):
        monkeypatch.delenv(name, raising=False)
    found = processes.result(processes.start(_HOMELESS, *TINY))
    assert found == [1, [16, 1, 75, 75, 3], None]
