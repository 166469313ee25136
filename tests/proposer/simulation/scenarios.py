"""Small scenarios, and a service without latencies of its own."""

from typing import Any

from proposer.settings import ProposerSettings
from proposer.simulation import Chain, Prover, Scenario, Service, Spread

AT_ONCE = Service(
    loop_seconds=0, cycle_start=0, cycle_seconds=0, brisk_seconds=0, status_seconds=0, operator_seconds=3600
)


def always(seconds: float) -> Spread:
    """A duration that is always the same."""
    return Spread(seconds, seconds)


def tiny(**changes: Any) -> Scenario:
    """Ten blocks in two ranges: witness 10 s, proving 30 s; aggregation 5 s and 20 s; looked at every second."""
    parts: dict[str, Any] = {
        "settings": ProposerSettings(max_block_range=5, look_interval=1),
        "chain": Chain(backlog=10, blocks=0),
        "prover": Prover(
            range_witness=always(10),
            range_proving=always(30),
            aggregation_witness=always(5),
            aggregation_proving=always(20),
            reference_blocks=5,
        ),
        "service": AT_ONCE,
    }
    return Scenario(**(parts | changes))
