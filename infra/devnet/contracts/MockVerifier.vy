# pragma version 0.4.3
"""
@title Mock verifier of the local devnet
@notice Accepts every statement, but only with an empty proof; anything else is Solidity's assert.
"""


@external
@view
def verifyProof(_programVKey: bytes32, _publicValues: Bytes[192], _proofBytes: Bytes[4096]):
    if len(_proofBytes) != 0:
        raw_revert(concat(method_id("Panic(uint256)"), convert(1, bytes32)))
