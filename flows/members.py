"""Compare the stored proofs of an aggregation's members with what the server still has of them.

A server that is given a range proof it cannot read drops the connection, which looks like an unknown outcome and says
nothing of the cause. Before such a request is asked again its members are fetched anew by their ids, which is free.
"""

import logging
from hashlib import sha256

from flows.context import Proposer
from proposer.errors import ProposerError
from proposer.polling import plausible
from proposer.requests import ProofRequest

log = logging.getLogger("proposer.members")


async def compare_members(proposer: Proposer, aggregation: ProofRequest) -> None:
    """Replace every stored range proof that is not what the server delivers now; one it has no more stays."""
    for member in await proposer.ledger.requests(aggregation.members):
        if member.prover_id is None:
            continue  # a mock proof came with the answer
        try:
            proof = plausible(member, await proposer.server.status(member.prover_id)).proof
        except ProposerError as error:
            log.info("%s cannot be compared with the server's: %s", member, error)
            continue
        if proof and sha256(proof).digest() != member.proof_digest:
            async with proposer.write() as writer:
                await writer.replace_proof(member.id, proof)
            log.warning("%s: the stored proof was not the server's and is replaced", member)
