"""`proposer apply`: make Prefect hold what this rollup needs there; again changes nothing."""

from collections.abc import Mapping
from datetime import timedelta
from pathlib import Path
from typing import Any

import yaml
from prefect.blocks.core import Block
from prefect.client.orchestration import PrefectClient, get_client
from prefect.client.schemas.actions import DeploymentScheduleCreate, WorkPoolCreate, WorkPoolUpdate
from prefect.client.schemas.schedules import IntervalSchedule
from prefect.exceptions import ObjectAlreadyExists, ObjectNotFound
from prefect.flows import load_flow_from_entrypoint
from prefect.utilities.callables import parameter_schema
from pydantic import SecretStr

from blocks.l1 import L1Chain
from blocks.ledger import ProofLedger
from blocks.op_node import OpNode
from blocks.output_oracle import L2OutputOracle
from blocks.prover import SuccinctServer
from blocks.signer import LocalSigner
from blocks.web3signer import Web3Signer
from deployments.automations import apply_automations
from deployments.environment import Environment
from deployments.homes import DEFAULT_NAME
from deployments.registry import Holding, register
from deployments.signing import LocalKey, signer_block
from flows.prove import rollup_tag
from proposer.errors import ProposerError

WORK_POOL_TYPE = "op-succinct-proposer"
"""A type that no worker but the proposer process serves."""

PREFECT_YAML = Path(__file__).resolve().parent.parent / "prefect.yaml"


def blocks_of(environment: Environment, database_url: str) -> dict[str, Block]:
    """Build this rollup's blocks from the environment, by the name each is known as here."""
    assert environment.signer is not None  # only a dry run has none, and sets nothing up
    return {
        "l1": L1Chain(urls=environment.l1_rpc),
        "node": OpNode(urls=environment.node_rpc),
        "oracle": L2OutputOracle(address=environment.oracle_address),
        "signer": signer_block(environment.signer),
        "server": SuccinctServer(url=environment.server_url, mock=environment.settings.mock),
        "ledger": ProofLedger(database_url=SecretStr(database_url)),
    }


async def apply(environment: Environment, database_url: str) -> list[str]:
    """Save the blocks, the work pool, the deployments of `prefect.yaml` and the automations; return what was set."""
    done: list[str] = []
    async with get_client() as client:
        for block in blocks_of(environment, database_url).values():
            await block.asave(environment.name, overwrite=True)
            done.append(f"block {block.get_block_type_slug()}/{environment.name}")
        await _forget_signer(client, environment)
        await _work_pool(client, environment.name)
        done.append(f"work pool {environment.name}")
        deployed = [await _deploy(client, description, environment) for description in _descriptions(environment.name)]
        automations = await apply_automations(client, environment)
    return [*done, *(f"deployment {name}" for name in deployed), *automations]


async def check_names(environment: Environment) -> tuple[list[str], str]:
    """Take the rollup's account and contract; return what another rollup has, and what could not be looked at."""
    assert environment.signer is not None  # as above
    signer = signer_block(environment.signer)
    try:
        async with L1Chain(urls=environment.l1_rpc) as l1:
            chain_id = await l1.chain_id()
    except ProposerError as error:
        return [], f"not looked at whether another rollup has its account or contract: {error}; proposer up does"
    holding = Holding(
        name=environment.name,
        l1_chain_id=chain_id,
        contract=environment.oracle_address,
        account=signer.address,
        setting=signer.setting,
    )
    async with get_client() as client:
        return await register(client, holding), ""


async def _forget_signer(client: PrefectClient, environment: Environment) -> None:
    """Delete the block of a signer that is not used any more: there may be a key in it."""
    used = LocalSigner if isinstance(environment.signer, LocalKey) else Web3Signer
    others = {LocalSigner, Web3Signer} - {used}
    for other in others:
        slug = other.get_block_type_slug()
        try:
            document = await client.read_block_document_by_name(environment.name, slug, include_secrets=False)
        except ObjectNotFound:
            continue
        await client.delete_block_document(document.id)


def _descriptions(name: str) -> list[dict[str, Any]]:
    """Read `prefect.yaml`, which describes the rollup of the default name, for the rollup of this name."""
    return [
        described
        | {
            "name": name,
            "description": described["description"].replace(f"/{DEFAULT_NAME}'", f"/{name}'"),
            "tags": [tag.replace(rollup_tag(DEFAULT_NAME), rollup_tag(name)) for tag in described["tags"]],
        }
        for described in yaml.safe_load(PREFECT_YAML.read_text(encoding="utf-8"))["deployments"]
    ]


async def _work_pool(client: PrefectClient, name: str) -> None:
    pool = WorkPoolCreate(
        name=name,
        type=WORK_POOL_TYPE,
        description="Served by the proposer process itself (`proposer up`); other workers find no work here.",
        # Prefect wants at least one job variable; nothing here reads it
        base_job_template={
            "job_configuration": {"env": "{{ env }}"},
            "variables": {"type": "object", "properties": {"env": {"type": "object", "default": {}}}},
        },
    )
    try:
        await client.create_work_pool(pool)
    except ObjectAlreadyExists:
        await client.update_work_pool(name, WorkPoolUpdate(description=pool.description))


async def _deploy(client: PrefectClient, description: Mapping[str, Any], environment: Environment) -> str:
    path, _, function = str(description["entrypoint"]).rpartition(":")
    flow = load_flow_from_entrypoint(f"{PREFECT_YAML.parent / path}:{function}")
    seconds = environment.settings.poll_interval
    schedules = [
        DeploymentScheduleCreate(
            schedule=IntervalSchedule(interval=timedelta(seconds=seconds)),
            slug=schedule["slug"],
            active=schedule["active"],
        )
        for schedule in description["schedules"]
    ]
    flow_id = await client.create_flow(flow)
    await client.create_deployment(
        flow_id=flow_id,
        name=description["name"],
        description=description["description"],
        entrypoint=description["entrypoint"],
        tags=description["tags"],
        parameters=description["parameters"],
        parameter_openapi_schema=parameter_schema(flow).model_dump_for_openapi(),
        enforce_parameter_schema=True,
        schedules=schedules,
        work_pool_name=environment.name,
        pull_steps=[],
    )
    return f"{flow.name}/{environment.name}"
