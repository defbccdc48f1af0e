"""How long tests wait for what should come soon, lest a hang last for ever."""

from __future__ import annotations

import os

# Machines that run tests can be busy; an emulated one is many times slower, and says so.
PATIENCE = 300.0 * float(os.environ.get("TIMESFORMER_TEST_PATIENCE", "1"))  # seconds
