"""`proposer plan`: one dry cycle, printed: what a proposer would do now, with calldata, gas and simulation."""

from typing import TYPE_CHECKING, Any

import typer
from rich.console import Console
from rich.markup import escape

from deployments.commands.running import run
from deployments.commands.shown import print_json, reason_json, reason_line
from deployments.console import AsJson, EnvFile, Name, environment_of, point_prefect_at

if TYPE_CHECKING:
    from flows.context import Proposer
    from flows.report import CycleReport


def plan(as_json: AsJson = False, name: Name = None, env_file: EnvFile = None) -> None:
    """Show what a cycle would do now: nothing is asked for, sent or written, and no key is needed."""
    environment = environment_of(env_file, name, dry_run=True, quiet=True)
    point_prefect_at(environment)
    from deployments.dry_run import look

    proposer, report = run(look(environment))
    shown = plan_json(proposer, report)
    if as_json:
        print_json(shown)
    else:
        _show(shown, report, Console(soft_wrap=True, highlight=False))
    raise typer.Exit(1 if report.failed else 0)


def plan_json(proposer: "Proposer", report: "CycleReport") -> dict[str, Any]:
    """Return what was decided as JSON: by stage, in order, with the error of one that failed."""
    from proposer.would import shown

    return {
        "name": proposer.name,
        "contract": proposer.oracle.address,
        "account": proposer.account,
        "stages": [
            {
                "stage": name,
                "did": stage.did,
                "would": shown(stage.would),
                "reasons": [reason_json(reason) for reason in stage.reasons],
                "error": report.failed.get(name),
            }
            for name, stage in report.stages.items()
        ]
        + [
            {"stage": name, "did": [], "would": [], "reasons": [], "error": error}
            for name, error in report.failed.items()
            if name not in report.stages
        ],
    }


def _show(shown: dict[str, Any], report: "CycleReport", console: Console) -> None:
    account = shown["account"] or "nobody (set SIGNER_ADDRESS to the proposer's account)"
    console.print(f"[bold]Contract {shown['contract']}, as {account}[/]. Nothing is asked for, sent or written.")
    for name, stage in report.stages.items():
        if not (stage.did or stage.reasons):
            continue
        console.print(f"\n[bold]{name}[/]")
        for line in (*stage.did, *(f"  {one}" for one in stage.would)):
            console.print(f"  {escape(line)}")
        for reason in stage.reasons:
            console.print(f"  {reason_line(reason)}")
    for name, error in report.failed.items():
        console.print(f"\n[bold red]{name} failed[/]: {escape(error)}")
    if not report.did:
        console.print("\nThere is nothing to do now.")
