"""Programs that try to break a run, as often as asked. They take long and are no part of pytest."""
