"""`proposer simulate`: the policy's own decisions under a virtual clock, before anything is paid for."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, TypeVar

import typer
from pydantic import BaseModel, ValidationError

from deployments.commands.running import run
from deployments.commands.shown import print_json
from deployments.commands.simulated import show, simulation_json
from deployments.console import AsJson, EnvFile, Name, refuse, values_of
from deployments.environment import read_settings
from proposer.errors import InvalidSettings
from proposer.settings import ProposerSettings, parse_seconds

if TYPE_CHECKING:
    from proposer.simulation import Prover, Spread

HISTORY = 500
"""Newest requests of the ledger that are learnt from."""

M = TypeVar("M", bound=BaseModel)
Times = Annotated[str | None, typer.Option(metavar="MEDIAN[:P95]", help="Such as 10m:25m; one alone is a constant.")]
Share = Annotated[float | None, typer.Option(help="A share of all requests, 0 to 1.")]
Price = Annotated[float | None, typer.Option(help="In a currency of your choice.")]
Duration = Annotated[str | None, typer.Option(metavar="SECONDS", help="Seconds, or a duration such as 6h.")]


def simulate(
    days: Annotated[float, typer.Option(help="Days of new L2 blocks.")] = 1.0,
    backlog: Annotated[int, typer.Option(help="L2 blocks that are final and not settled at the start.")] = 0,
    block_time: Annotated[float | None, typer.Option(help="Seconds between two L2 blocks.")] = None,
    finality_lag: Duration = None,
    range_witness: Times = None,
    range_proving: Times = None,
    aggregation_witness: Times = None,
    aggregation_proving: Times = None,
    from_ledger: Annotated[
        bool, typer.Option("--from-ledger", help="Take times and failures from this ledger's own history.")
    ] = False,
    unfulfillable: Share = None,
    witness_failures: Share = None,
    unexecutable_above: Annotated[int | None, typer.Option(help="L2 blocks; larger ranges are halved.")] = None,
    outage_every: Duration = None,
    outage_seconds: Duration = None,
    l1_block_time: Annotated[float | None, typer.Option(help="Seconds between two L1 blocks.")] = None,
    submission_interval: Annotated[int | None, typer.Option(help="The contract's own, in L2 blocks.")] = None,
    price_range: Price = None,
    price_block: Price = None,
    price_aggregation: Price = None,
    gas_gwei: Annotated[float | None, typer.Option(help="Price of gas, in gwei.")] = None,
    price_ether: Price = None,
    set_: Annotated[
        list[str] | None, typer.Option("--set", metavar="NAME=VALUE", help="A setting for this simulation only.")
    ] = None,
    compare: Annotated[bool, typer.Option("--compare", help="Run the original proposer's policy too.")] = False,
    recommend: Annotated[bool, typer.Option("--recommend", help="Try range sizes and caps; say which fit.")] = False,
    picture: Annotated[Path | None, typer.Option(help="Draw lag and queue over time into this SVG file.")] = None,
    seed: Annotated[int, typer.Option(help="The same seed gives the same outcome.", min=0)] = 1,
    as_json: AsJson = False,
    name: Name = None,
    env_file: EnvFile = None,
) -> None:
    """Say how far settlement would lag, how long the queue would be and what it would cost; nothing is asked or sent.

    The policy's settings come from the environment, as `proposer up` has them. Neither key nor network is needed.
    """
    from proposer import simulation as sim

    values = values_of(env_file, name)
    problems: list[str] = []
    settings = _settings(values, set_ or [], problems)
    seconds = _Durations(problems)
    chain = _part(
        sim.Chain,
        problems,
        block_seconds=block_time,
        finality_lag=seconds.one("--finality-lag", finality_lag),
        backlog=backlog,
        blocks=_blocks(days, block_time or sim.Chain.model_fields["block_seconds"].default, problems),
    )
    prover = _part(
        sim.Prover,
        problems,
        range_witness=seconds.spread("--range-witness", range_witness),
        range_proving=seconds.spread("--range-proving", range_proving),
        aggregation_witness=seconds.spread("--aggregation-witness", aggregation_witness),
        aggregation_proving=seconds.spread("--aggregation-proving", aggregation_proving),
        unfulfillable=unfulfillable,
        witness_failures=witness_failures,
        unexecutable_above=unexecutable_above,
        outage_every=seconds.one("--outage-every", outage_every),
        outage_seconds=seconds.one("--outage-seconds", outage_seconds),
    )
    l1 = _part(sim.L1, problems, block_seconds=l1_block_time, submission_interval=submission_interval)
    prices = _part(
        sim.Prices,
        problems,
        range_proof=price_range,
        block=price_block,
        aggregation_proof=price_aggregation,
        gas_gwei=gas_gwei,
        ether=price_ether,
    )
    times = (range_witness, range_proving, aggregation_witness, aggregation_proving, unfulfillable)
    if from_ledger and any(each is not None for each in times):
        problems.append("--from-ledger: gives the times and --unfulfillable itself; leave either it or these out")
    if picture is not None and not picture.resolve().parent.is_dir():
        problems.append(f"--picture: the folder {picture.resolve().parent} does not exist; create it")
    if problems or settings is None or chain is None or prover is None or l1 is None or prices is None:
        refuse(problems)
    if from_ledger:
        prover = run(_fitted(values, prover))
    scenario = sim.Scenario(settings=settings, chain=chain, prover=prover, l1=l1, prices=prices, seed=seed)
    outcomes = {"proposer": sim.simulate(scenario)}
    if compare:
        outcomes["original"] = sim.simulate_seed(scenario)
    advice = sim.recommend(scenario) if recommend else None
    if picture is not None:
        _draw(picture, sim.picture(scenario, outcomes["proposer"]))
    if as_json:
        print_json(simulation_json(scenario, outcomes, advice))
    else:
        show(scenario, outcomes, advice, picture)
    raise typer.Exit(0 if outcomes["proposer"].kept_up else 1)


def _settings(values: Mapping[str, str], changes: Sequence[str], problems: list[str]) -> ProposerSettings | None:
    known = {field.alias for field in ProposerSettings.model_fields.values()}
    changed = dict(values)
    for change in changes:
        setting, equals, value = change.partition("=")
        if not equals or setting not in known:
            problems.append(
                f"--set: {change[:80]!r} is not NAME=VALUE of a setting of the policy; see docs/configuration.md"
            )
        else:
            changed[setting] = value
    try:
        return read_settings(changed)
    except InvalidSettings as error:
        problems += error.problems
        return None


def _blocks(days: float, block_time: float, problems: list[str]) -> int:
    if not 0 <= days <= 366:
        problems.append(f"--days: must be 0 to 366, not {days:g}")
        return 1
    return int(days * 86_400 / block_time) if block_time > 0 else 1


class _Durations:
    """Reads durations; what is wrong is a problem with the option's name."""

    def __init__(self, problems: list[str]) -> None:
        self._problems = problems

    def one(self, option: str, text: str | None) -> float | None:
        """Read seconds or a Go duration."""
        if text is None:
            return None
        try:
            return float(str(parse_seconds(text)))
        except ValueError:
            self._problems.append(f"{option}: {text!r} is not a duration; write seconds, or a duration such as 10m")
            return None

    def spread(self, option: str, text: str | None) -> "Spread | None":
        """Read MEDIAN or MEDIAN:P95."""
        from proposer.simulation import Spread

        if text is None:
            return None
        median, _, p95 = text.partition(":")
        parts = [self.one(option, part) for part in (median, p95 or median)]
        if parts[0] is None or parts[1] is None:
            return None
        try:
            return Spread(parts[0], parts[1])
        except ValueError as error:
            self._problems.append(f"{option}: {error}")
            return None


def _part(model: Callable[..., M], problems: list[str], **given: object) -> M | None:
    """Make a part of the scenario of what was given; each problem carries the option's value."""
    try:
        return model(**{name: value for name, value in given.items() if value is not None})
    except ValidationError as error:
        for problem in error.errors():
            field = " ".join(str(part) for part in problem["loc"]).replace("_", " ")
            message = problem["msg"].removeprefix("Value error, ")
            problems.append(f"{field}: {message}, not {problem['input']!r}" if field else message)
        return None


async def _fitted(values: Mapping[str, str], prover: "Prover") -> "Prover":
    from blocks.ledger.history import ended
    from deployments.desk import open_ledger
    from proposer.simulation import fitted

    async with open_ledger(values) as ledger:
        history = await ended(ledger, HISTORY)
    try:
        return fitted(history, prover)
    except ValueError as error:
        raise InvalidSettings([f"--from-ledger: {error}; give the times instead (--range-proving, ...)"]) from None


def _draw(file: Path, drawn: str) -> None:
    try:
        file.write_text(drawn, encoding="utf-8")
    except OSError as error:
        refuse([f"--picture: {file} cannot be written ({error.strerror}); choose another"])
