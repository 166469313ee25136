"""A local L1, L2 and prover for the demo and the acceptance tests: real where it can be real."""

from infra.devnet.anvil import Anvil
from infra.devnet.checker import Report, check
from infra.devnet.devnet import Devnet, DevnetConfig
from infra.devnet.faults import Fault, FaultPlan
from infra.devnet.l1_front import L1Faults
from infra.devnet.l2 import SimulatedL2
from infra.devnet.op_node import NodeFaults
from infra.devnet.postgres_proxy import PostgresProxy
from infra.devnet.proving import ProverTiming
from infra.devnet.traps import Traps

__all__ = [
    "Anvil",
    "Devnet",
    "DevnetConfig",
    "Fault",
    "FaultPlan",
    "L1Faults",
    "NodeFaults",
    "PostgresProxy",
    "ProverTiming",
    "Report",
    "SimulatedL2",
    "Traps",
    "check",
]
