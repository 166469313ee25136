"""The doctor's checks, in the order in which they are run and shown."""

from deployments.checks import ledger, machine, outside, prefect
from deployments.checks.bench import Check

CHECKS: tuple[Check, ...] = (*ledger.CHECKS, *outside.CHECKS, *prefect.CHECKS, *machine.CHECKS)
