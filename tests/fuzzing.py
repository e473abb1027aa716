"""How the fuzz tests draw their examples."""

from datetime import timedelta
from functools import partial

from hypothesis import HealthCheck, settings

# Seeded, so that a failure comes again; the deadline catches what hangs.
fuzz = partial(
    settings,
    derandomize=True,
    database=None,
    deadline=timedelta(seconds=10),
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture],
)
