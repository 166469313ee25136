"""Metrics and health of the proposer process over HTTP."""

from deployments.metrics.server import serving
from deployments.metrics.sources import Sources

__all__ = ["Sources", "serving"]
