"""The ledger's tables. What must never be true is refused by the database itself, not by care.

Migrations in `migrations/versions` build the same schema; a test holds the two equal.
"""

from enum import StrEnum

from sqlalchemy import (
    BigInteger,
    CheckConstraint,
    Column,
    DateTime,
    ForeignKey,
    Identity,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    Numeric,
    Table,
    Text,
    func,
    text,
)
from sqlalchemy.dialects.postgresql import ExcludeConstraint

from proposer.l1_transactions import UNSETTLED, Purpose, TxStatus
from proposer.orders import ABOUT_A_REQUEST, OrderKind
from proposer.requests import OPEN, Failure, Kind, Status

metadata = MetaData(
    naming_convention={
        "pk": "pk_%(table_name)s",
        "fk": "fk_%(table_name)s_%(column_0_name)s",
        "ck": "ck_%(table_name)s_%(constraint_name)s",
        "uq": "uq_%(table_name)s_%(column_0_name)s",
        "ix": "ix_%(table_name)s_%(column_0_name)s",
    }
)


def _one_of(column: str, values: type[StrEnum] | frozenset[Status | TxStatus | OrderKind]) -> str:
    return f"{column} IN ({', '.join(sorted(repr(str(value)) for value in values))})"


_IS_OPEN = _one_of("status", OPEN)
_NOW = func.now()

identity = Table(
    "identity",
    metadata,
    Column("id", Integer, CheckConstraint("id = 1", name="single"), primary_key=True, autoincrement=False),
    Column("l1_chain_id", BigInteger, nullable=False),
    Column("l2_chain_id", BigInteger, nullable=False),
    Column("contract", Text, nullable=False),
    # this very database: what it has told Prefect is not another ledger's, even one of the same contract
    Column("ledger_id", Text, nullable=False, server_default=text("gen_random_uuid()::text")),
)

leadership = Table(
    "leadership",
    metadata,
    Column("id", Integer, CheckConstraint("id = 1", name="single"), primary_key=True, autoincrement=False),
    Column("owner", Text, nullable=False),
    Column("epoch", BigInteger, nullable=False),
    Column("taken_at", DateTime(timezone=True), nullable=False, server_default=func.clock_timestamp()),
    Column("expires_at", DateTime(timezone=True), nullable=False),
)

marks = Table(
    "marks",
    metadata,
    Column("name", Text, primary_key=True),
    Column("number", BigInteger, nullable=False),
    Column("at", DateTime(timezone=True), nullable=False),
)

proof_requests = Table(
    "proof_requests",
    metadata,
    Column("id", BigInteger, Identity(), primary_key=True),
    Column("kind", Text, nullable=False),
    Column("start_block", BigInteger, nullable=False),
    Column("end_block", BigInteger, nullable=False),
    Column("status", Text, nullable=False),
    Column("attempt", Integer, nullable=False),
    Column("parent_id", BigInteger, ForeignKey("proof_requests.id")),
    Column("since", DateTime(timezone=True), nullable=False, server_default=_NOW),
    Column("created_at", DateTime(timezone=True), nullable=False, server_default=_NOW),
    Column("failure", Text),
    Column("failure_text", Text),
    Column("next_attempt_at", DateTime(timezone=True)),
    Column("next_poll_at", DateTime(timezone=True)),
    Column("prover_request_id", Text),
    Column("requested_at", DateTime(timezone=True)),
    Column("claimed_epoch", BigInteger),
    Column("range_vkey", LargeBinary, nullable=False),
    Column("agg_vkey", LargeBinary, nullable=False),
    Column("config_hash", LargeBinary, nullable=False),
    Column("l1_head", BigInteger),
    Column("l1_head_hash", LargeBinary),
    Column("checkpoint_number", BigInteger),
    Column("checkpoint_hash", LargeBinary),
    Column("output_root", LargeBinary),
    Column("proof_digest", LargeBinary),
    Column("proof_length", BigInteger),
    Column("unknown_outcomes", Integer, nullable=False, server_default=text("0")),
    # the mirror's: which run tells this request's story, how many it took, and the last event it shows
    Column("flow_run_id", Text),
    Column("story", Integer, nullable=False, server_default=text("0")),
    Column("last_event", BigInteger, nullable=False, server_default=text("0")),
    Column("mirrored_event", BigInteger, nullable=False, server_default=text("0")),
    Column("cycle_run_id", Text),
    CheckConstraint(_one_of("kind", Kind), name="kind"),
    CheckConstraint(_one_of("status", Status), name="status"),
    CheckConstraint(f"failure IS NULL OR {_one_of('failure', Failure)}", name="failure"),
    CheckConstraint("0 <= start_block AND start_block < end_block", name="blocks"),
    CheckConstraint("attempt >= 1", name="attempt"),
    CheckConstraint("status <> 'PROVING' OR prover_request_id IS NOT NULL", name="proving_has_id"),
    CheckConstraint(
        "status NOT IN ('COMPLETE', 'RELAYED') OR (proof_digest IS NOT NULL AND proof_length IS NOT NULL)",
        name="complete_has_proof",
    ),
    CheckConstraint("status <> 'FAILED' OR failure IS NOT NULL", name="failed_has_failure"),
    CheckConstraint("(l1_head IS NULL) = (l1_head_hash IS NULL)", name="l1_head"),
    CheckConstraint("(checkpoint_number IS NULL) = (checkpoint_hash IS NULL)", name="checkpoint"),
    ExcludeConstraint(
        (func.int8range(Column("start_block", BigInteger), Column("end_block", BigInteger)), "&&"),
        using="gist",
        where=text(f"kind = 'RANGE' AND {_IS_OPEN}"),
        name="open_ranges_do_not_overlap",
    ),
    Index(
        "one_open_aggregation_per_start",
        "start_block",
        unique=True,
        postgresql_where=text(f"kind = 'AGG' AND {_IS_OPEN}"),
    ),
    Index("open_requests", "start_block", postgresql_where=text(_IS_OPEN)),
    Index("coverage", "end_block", postgresql_where=text("status IN ('COMPLETE', 'RELAYED')")),
    Index("not_yet_relayed", "end_block", postgresql_where=text("status = 'COMPLETE'")),
    Index("closed_above", "end_block", postgresql_where=text("status IN ('FAILED', 'CANCELLED')")),
    Index("due_for_a_look", "next_poll_at", postgresql_where=text("next_poll_at IS NOT NULL")),
    Index("to_mirror", "id", postgresql_where=text("last_event > mirrored_event")),
    Index("parents", "parent_id"),
)

proofs = Table(
    "proofs",
    metadata,
    Column("request_id", BigInteger, ForeignKey("proof_requests.id"), primary_key=True),
    Column("proof", LargeBinary, nullable=False),
)

aggregation_members = Table(
    "aggregation_members",
    metadata,
    Column("aggregation_id", BigInteger, ForeignKey("proof_requests.id"), primary_key=True),
    Column("position", Integer, primary_key=True),
    Column("range_id", BigInteger, ForeignKey("proof_requests.id"), nullable=False),
)

request_events = Table(
    "request_events",
    metadata,
    Column("id", BigInteger, Identity(), primary_key=True),
    Column("request_id", BigInteger, ForeignKey("proof_requests.id"), nullable=False),
    Column("from_status", Text),
    Column("to_status", Text, nullable=False),
    Column("failure", Text),
    Column("why", Text, nullable=False),
    Column("at", DateTime(timezone=True), nullable=False, server_default=func.clock_timestamp()),
    Column("epoch", BigInteger, nullable=False),
    Index("events_of_a_request", "request_id", "id"),
    Index("events_by_time", "at"),
)

operator_orders = Table(
    "operator_orders",
    metadata,
    Column("id", BigInteger, Identity(), primary_key=True),
    Column("kind", Text, nullable=False),
    # no foreign key: an order about a request that does not exist is answered, not refused
    Column("request_id", BigInteger),
    Column("who", Text, nullable=False),
    Column("why", Text, nullable=False),
    Column("at", DateTime(timezone=True), nullable=False, server_default=func.clock_timestamp()),
    Column("done_at", DateTime(timezone=True)),
    Column("outcome", Text),
    CheckConstraint(_one_of("kind", OrderKind), name="kind"),
    CheckConstraint(f"(request_id IS NOT NULL) = ({_one_of('kind', ABOUT_A_REQUEST)})", name="about"),
    CheckConstraint("(done_at IS NULL) = (outcome IS NULL)", name="done"),
    Index("orders_to_do", "id", postgresql_where=text("done_at IS NULL")),
)

late_answers = Table(
    "late_answers",
    metadata,
    Column("request_id", BigInteger, ForeignKey("proof_requests.id"), primary_key=True, autoincrement=False),
    Column("prover_request_id", Text, primary_key=True),
    Column("at", DateTime(timezone=True), nullable=False, server_default=func.clock_timestamp()),
)

l1_transactions = Table(
    "l1_transactions",
    metadata,
    Column("id", BigInteger, Identity(), primary_key=True),
    Column("purpose", Text, nullable=False),
    Column("request_id", BigInteger, ForeignKey("proof_requests.id")),
    Column("sender", Text, nullable=False),
    Column("nonce", BigInteger, nullable=False),
    Column("status", Text, nullable=False),
    Column("created_at", DateTime(timezone=True), nullable=False, server_default=_NOW),
    Column("mined_hash", LargeBinary),
    Column("block_number", BigInteger),
    Column("block_hash", LargeBinary),
    Column("gas_used", BigInteger),
    CheckConstraint(_one_of("purpose", Purpose), name="purpose"),
    CheckConstraint(_one_of("status", TxStatus), name="status"),
    CheckConstraint(
        "(status IN ('MINED', 'CONFIRMED', 'REVERTED')) = (block_hash IS NOT NULL AND mined_hash IS NOT NULL)",
        name="mined_in_block",
    ),
    Index("unsettled", "id", postgresql_where=text(_one_of("status", UNSETTLED))),
    Index("transactions_by_block", "block_number"),
    Index(
        "one_live_transaction_per_nonce",
        "sender",
        "nonce",
        unique=True,
        postgresql_where=text("status <> 'DISPLACED'"),
    ),
)

l1_signed = Table(
    "l1_signed",
    metadata,
    Column("hash", LargeBinary, primary_key=True),
    Column("transaction_id", BigInteger, ForeignKey("l1_transactions.id"), nullable=False),
    Column("raw", LargeBinary, nullable=False),
    Column("tip", Numeric(78, 0), nullable=False),
    Column("fee_cap", Numeric(78, 0), nullable=False),
    Column("at", DateTime(timezone=True), nullable=False, server_default=func.clock_timestamp()),
    # what this form does; a nonce may be signed for something else later
    Column("purpose", Text, nullable=False),
    Column("subject", BigInteger),
    Column("recipient", Text, nullable=False),
    Column("calldata", LargeBinary, nullable=False),
    Column("calldata_digest", LargeBinary, nullable=False),
    Column("gas", BigInteger, nullable=False),
    CheckConstraint(_one_of("purpose", Purpose), name="purpose"),
    Index("signed_of_a_transaction", "transaction_id"),
)
