"""Runs a plan in a process of its own, which a test can kill: `supervised.py PLAN.json`."""

from __future__ import annotations

import json
import sys
from pathlib import Path

from streamer.graph.plan import Plan
from streamer.runtime import Silent, Supervisor

Supervisor(Plan.from_dict(json.loads(Path(sys.argv[1]).read_text())), Silent()).run()
