# pragma version 0.4.3
"""
@title Verifier of the local devnet
@notice Accepts a proof only for exactly its verification key and public values: a proof is a 4-byte
        selector and keccak256(vkey ++ publicValues). What a real proof binds by cryptography is bound
        here by a hash, so a wrong root, head or checkpoint reverts as it would on mainnet.
"""

SELECTOR: constant(bytes4) = 0x0de7e701


@external
@view
def verifyProof(_programVKey: bytes32, _publicValues: Bytes[192], _proofBytes: Bytes[4096]):
    assert len(_proofBytes) >= 4
    selector: bytes4 = convert(slice(_proofBytes, 0, 4), bytes4)
    if selector != SELECTOR:
        raw_revert(concat(method_id("RouteNotFound(bytes4)"), convert(selector, bytes32)))
    if len(_proofBytes) != 36:
        raw_revert(method_id("ProofInvalid()"))
    expected: bytes32 = keccak256(concat(_programVKey, _publicValues))
    if convert(slice(_proofBytes, 4, 32), bytes32) != expected:
        raw_revert(method_id("ProofInvalid()"))
