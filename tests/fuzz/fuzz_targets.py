"""All parsers that meet bytes from outside."""

from __future__ import annotations

import fuzz_addresses
import fuzz_graphs
import fuzz_messages
import fuzz_models
import fuzz_web
from fuzz_target import Target

TARGETS: dict[str, Target] = {
    target.name: target
    for module in (fuzz_messages, fuzz_graphs, fuzz_addresses, fuzz_models, fuzz_web)
    for target in module.TARGETS
}
