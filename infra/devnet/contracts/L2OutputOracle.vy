# pragma version 0.4.3
"""
@title L2OutputOracle of the local devnet
@notice Same ABI, checks, order of checks, revert data and events as version v1.0.0 of the OP Succinct
        oracle: a proposal is taken only with a proof that the verifier accepts for exactly this head.
@dev Vyper has no overloads: the optimistic proposeL2Output(bytes32,uint256,bytes32,uint256) is served
     from __default__.
"""

struct OutputProposal:
    outputRoot: bytes32
    timestamp: uint128
    l2BlockNumber: uint128

event OutputProposed:
    outputRoot: indexed(bytes32)
    l2OutputIndex: indexed(uint256)
    l2BlockNumber: indexed(uint256)
    l1Timestamp: uint256

event OutputsDeleted:
    prevNextOutputIndex: indexed(uint256)
    newNextOutputIndex: indexed(uint256)

event OptimisticModeToggled:
    enabled: indexed(bool)
    finalizationPeriodSeconds: uint256

event SubmissionIntervalUpdated:
    oldSubmissionInterval: uint256
    newSubmissionInterval: uint256

event AggregationVkeyUpdated:
    oldAggregationVkey: indexed(bytes32)
    newAggregationVkey: indexed(bytes32)

event RangeVkeyCommitmentUpdated:
    oldRangeVkeyCommitment: indexed(bytes32)
    newRangeVkeyCommitment: indexed(bytes32)

event RollupConfigHashUpdated:
    oldRollupConfigHash: indexed(bytes32)
    newRollupConfigHash: indexed(bytes32)

event VerifierUpdated:
    oldVerifier: indexed(address)
    newVerifier: indexed(address)

event ProposerUpdated:
    proposer: indexed(address)
    added: bool

event OwnershipTransferred:
    previousOwner: indexed(address)
    newOwner: indexed(address)

MAX_PROOF: constant(uint256) = 4096
# keccak256("proposeL2Output(bytes32,uint256,bytes32,uint256)")[:4]
OPTIMISTIC_PROPOSE: constant(bytes4) = 0x9aaab648

startingBlockNumber: public(uint256)
startingTimestamp: public(uint256)
submissionInterval: public(uint256)
l2BlockTime: public(uint256)
challenger: public(address)
proposer: public(address)
finalizationPeriodSeconds: public(uint256)
aggregationVkey: public(bytes32)
rangeVkeyCommitment: public(bytes32)
rollupConfigHash: public(bytes32)
verifier: public(address)
owner: public(address)
approvedProposers: public(HashMap[address, bool])
historicBlockHashes: public(HashMap[uint256, bytes32])
optimisticMode: public(bool)

output_count: uint256
output_roots: HashMap[uint256, bytes32]
# timestamp in the low, L2 block number in the high 128 bits: two slots per output, as the real contract.
output_places: HashMap[uint256, uint256]


@deploy
def __init__(
    _verifier: address,
    _challenger: address,
    _proposer: address,
    _submissionInterval: uint256,
    _l2BlockTime: uint256,
    _startingBlockNumber: uint256,
    _startingTimestamp: uint256,
    _startingOutputRoot: bytes32,
    _finalizationPeriodSeconds: uint256,
    _aggregationVkey: bytes32,
    _rangeVkeyCommitment: bytes32,
    _rollupConfigHash: bytes32,
):
    assert _submissionInterval > 0, "L2OutputOracle: submission interval must be greater than 0"
    assert _l2BlockTime > 0, "L2OutputOracle: L2 block time must be greater than 0"
    assert _startingTimestamp <= block.timestamp, "L2OutputOracle: starting L2 timestamp must be less than current time"
    self.verifier = _verifier
    self.challenger = _challenger
    self.submissionInterval = _submissionInterval
    self.l2BlockTime = _l2BlockTime
    self.startingBlockNumber = _startingBlockNumber
    self.startingTimestamp = _startingTimestamp
    self.finalizationPeriodSeconds = _finalizationPeriodSeconds
    self.aggregationVkey = _aggregationVkey
    self.rangeVkeyCommitment = _rangeVkeyCommitment
    self.rollupConfigHash = _rollupConfigHash
    self.owner = msg.sender
    log OwnershipTransferred(previousOwner=empty(address), newOwner=msg.sender)
    self.approvedProposers[_proposer] = True
    log ProposerUpdated(proposer=_proposer, added=True)
    self._store(_startingOutputRoot, _startingTimestamp, _startingBlockNumber)


@internal
def _store(_root: bytes32, _timestamp: uint256, _l2BlockNumber: uint256):
    index: uint256 = self.output_count
    self.output_roots[index] = _root
    self.output_places[index] = (_l2BlockNumber << 128) | _timestamp
    self.output_count = index + 1


@internal
@view
def _output(_index: uint256) -> OutputProposal:
    # Reading past the array panics with 0x32 in Solidity.
    if _index >= self.output_count:
        raw_revert(concat(method_id("Panic(uint256)"), convert(50, bytes32)))
    place: uint256 = self.output_places[_index]
    return OutputProposal(
        outputRoot=self.output_roots[_index],
        timestamp=convert(place & (2**128 - 1), uint128),
        l2BlockNumber=convert(place >> 128, uint128),
    )


@internal
@view
def _latest_block_number() -> uint256:
    if self.output_count == 0:
        return self.startingBlockNumber
    return self.output_places[self.output_count - 1] >> 128


@internal
@view
def _compute_l2_timestamp(_l2BlockNumber: uint256) -> uint256:
    return self.startingTimestamp + (_l2BlockNumber - self.startingBlockNumber) * self.l2BlockTime


@internal
@view
def _check_owner():
    assert msg.sender == self.owner, "L2OutputOracle: caller is not the owner"


@internal
@view
def _check_proposer():
    assert (
        self.approvedProposers[msg.sender] or self.approvedProposers[empty(address)]
    ), "L2OutputOracle: only approved proposers can propose new outputs"


@internal
def _append(_root: bytes32, _l2BlockNumber: uint256):
    log OutputProposed(
        outputRoot=_root,
        l2OutputIndex=self.output_count,
        l2BlockNumber=_l2BlockNumber,
        l1Timestamp=block.timestamp,
    )
    self._store(_root, block.timestamp, _l2BlockNumber)


@external
@payable
def proposeL2Output(
    _outputRoot: bytes32, _l2BlockNumber: uint256, _l1BlockNumber: uint256, _proof: Bytes[MAX_PROOF]
):
    assert not self.optimisticMode, "L2OutputOracle: optimistic mode is enabled"
    self._check_proposer()
    assert (
        _l2BlockNumber >= self._latest_block_number() + self.submissionInterval
    ), "L2OutputOracle: block number must be greater than or equal to next expected block number"
    assert (
        self._compute_l2_timestamp(_l2BlockNumber) < block.timestamp
    ), "L2OutputOracle: cannot propose L2 output in the future"
    assert _outputRoot != empty(bytes32), "L2OutputOracle: L2 output proposal cannot be the zero hash"
    l1_head: bytes32 = self.historicBlockHashes[_l1BlockNumber]
    if l1_head == empty(bytes32):
        raw_revert(method_id("L1BlockHashNotCheckpointed()"))
    public_values: Bytes[192] = abi_encode(
        l1_head,
        self.output_roots[self.output_count - 1],
        _outputRoot,
        _l2BlockNumber,
        self.rollupConfigHash,
        self.rangeVkeyCommitment,
    )
    # Vyper has no static call to a view function that returns nothing; a revert of the verifier passes through.
    assert self.verifier.is_contract
    raw_call(
        self.verifier,
        abi_encode(
            self.aggregationVkey, public_values, _proof, method_id=method_id("verifyProof(bytes32,bytes,bytes)")
        ),
        is_static_call=True,
    )
    self._append(_outputRoot, _l2BlockNumber)


@internal
def _propose_optimistic(_outputRoot: bytes32, _l2BlockNumber: uint256, _l1BlockHash: bytes32, _l1BlockNumber: uint256):
    assert self.optimisticMode, "L2OutputOracle: optimistic mode is not enabled"
    self._check_proposer()
    assert (
        _l2BlockNumber == self._latest_block_number() + self.submissionInterval
    ), "L2OutputOracle: block number must be equal to next expected block number"
    assert (
        self._compute_l2_timestamp(_l2BlockNumber) < block.timestamp
    ), "L2OutputOracle: cannot propose L2 output in the future"
    assert _outputRoot != empty(bytes32), "L2OutputOracle: L2 output proposal cannot be the zero hash"
    if _l1BlockHash != empty(bytes32):
        known: bytes32 = empty(bytes32)
        if _l1BlockNumber < block.number and _l1BlockNumber + 256 >= block.number:
            known = blockhash(_l1BlockNumber)
        assert known == _l1BlockHash, "L2OutputOracle: block hash does not match the hash at the expected height"
    self._append(_outputRoot, _l2BlockNumber)


@external
@payable
def __default__():
    assert len(msg.data) >= 132
    assert convert(slice(msg.data, 0, 4), bytes4) == OPTIMISTIC_PROPOSE
    root: bytes32 = empty(bytes32)
    l2_block: uint256 = 0
    l1_hash: bytes32 = empty(bytes32)
    l1_block: uint256 = 0
    root, l2_block, l1_hash, l1_block = abi_decode(
        slice(msg.data, 4, 128), (bytes32, uint256, bytes32, uint256)
    )
    self._propose_optimistic(root, l2_block, l1_hash, l1_block)


@external
@payable
def checkpointBlockHash(_blockNumber: uint256):
    # blockhash() knows the 256 blocks before this one; Vyper's builtin reverts without data outside of them.
    if _blockNumber >= block.number or _blockNumber + 256 < block.number:
        raw_revert(method_id("L1BlockHashNotAvailable()"))
    block_hash: bytes32 = blockhash(_blockNumber)
    if block_hash == empty(bytes32):
        raw_revert(method_id("L1BlockHashNotAvailable()"))
    self.historicBlockHashes[_blockNumber] = block_hash


@external
def deleteL2Outputs(_l2OutputIndex: uint256):
    assert msg.sender == self.challenger, "L2OutputOracle: only the challenger address can delete outputs"
    assert (
        _l2OutputIndex < self.output_count
    ), "L2OutputOracle: cannot delete outputs after the latest output index"
    assert (
        block.timestamp - convert(self._output(_l2OutputIndex).timestamp, uint256) < self.finalizationPeriodSeconds
    ), "L2OutputOracle: cannot delete outputs that have already been finalized"
    log OutputsDeleted(prevNextOutputIndex=self.output_count, newNextOutputIndex=_l2OutputIndex)
    self.output_count = _l2OutputIndex


# ---- reads


@external
@pure
def version() -> String[6]:
    return "v1.0.0"


@external
@view
def latestBlockNumber() -> uint256:
    return self._latest_block_number()


@external
@view
def nextBlockNumber() -> uint256:
    return self._latest_block_number() + self.submissionInterval


@external
@view
def latestOutputIndex() -> uint256:
    return self.output_count - 1


@external
@view
def nextOutputIndex() -> uint256:
    return self.output_count


@external
@view
def getL2Output(_l2OutputIndex: uint256) -> OutputProposal:
    return self._output(_l2OutputIndex)


@internal
@view
def _index_after(_l2BlockNumber: uint256) -> uint256:
    assert (
        _l2BlockNumber <= self._latest_block_number()
    ), "L2OutputOracle: cannot get output for a block that has not been proposed"
    assert self.output_count > 0, "L2OutputOracle: cannot get output as no outputs have been proposed yet"
    lo: uint256 = 0
    hi: uint256 = self.output_count
    for _: uint256 in range(256):
        if lo >= hi:
            break
        mid: uint256 = (lo + hi) // 2
        if (self.output_places[mid] >> 128) < _l2BlockNumber:
            lo = mid + 1
        else:
            hi = mid
    return lo


@external
@view
def getL2OutputIndexAfter(_l2BlockNumber: uint256) -> uint256:
    return self._index_after(_l2BlockNumber)


@external
@view
def getL2OutputAfter(_l2BlockNumber: uint256) -> OutputProposal:
    return self._output(self._index_after(_l2BlockNumber))


@external
@view
def computeL2Timestamp(_l2BlockNumber: uint256) -> uint256:
    return self._compute_l2_timestamp(_l2BlockNumber)


@external
@view
def SUBMISSION_INTERVAL() -> uint256:
    return self.submissionInterval


@external
@view
def L2_BLOCK_TIME() -> uint256:
    return self.l2BlockTime


@external
@view
def CHALLENGER() -> address:
    return self.challenger


@external
@view
def PROPOSER() -> address:
    return self.proposer


@external
@view
def FINALIZATION_PERIOD_SECONDS() -> uint256:
    return self.finalizationPeriodSeconds


# ---- owner


@external
def updateSubmissionInterval(_submissionInterval: uint256):
    self._check_owner()
    log SubmissionIntervalUpdated(
        oldSubmissionInterval=self.submissionInterval, newSubmissionInterval=_submissionInterval
    )
    self.submissionInterval = _submissionInterval


@external
def updateAggregationVkey(_aggregationVkey: bytes32):
    self._check_owner()
    log AggregationVkeyUpdated(oldAggregationVkey=self.aggregationVkey, newAggregationVkey=_aggregationVkey)
    self.aggregationVkey = _aggregationVkey


@external
def updateRangeVkeyCommitment(_rangeVkeyCommitment: bytes32):
    self._check_owner()
    log RangeVkeyCommitmentUpdated(
        oldRangeVkeyCommitment=self.rangeVkeyCommitment, newRangeVkeyCommitment=_rangeVkeyCommitment
    )
    self.rangeVkeyCommitment = _rangeVkeyCommitment


@external
def updateRollupConfigHash(_rollupConfigHash: bytes32):
    self._check_owner()
    log RollupConfigHashUpdated(oldRollupConfigHash=self.rollupConfigHash, newRollupConfigHash=_rollupConfigHash)
    self.rollupConfigHash = _rollupConfigHash


@external
def updateVerifier(_verifier: address):
    self._check_owner()
    log VerifierUpdated(oldVerifier=self.verifier, newVerifier=_verifier)
    self.verifier = _verifier


@external
def addProposer(_proposer: address):
    self._check_owner()
    self.approvedProposers[_proposer] = True
    log ProposerUpdated(proposer=_proposer, added=True)


@external
def removeProposer(_proposer: address):
    self._check_owner()
    self.approvedProposers[_proposer] = False
    log ProposerUpdated(proposer=_proposer, added=False)


@external
def enableOptimisticMode(_finalizationPeriodSeconds: uint256):
    self._check_owner()
    assert not self.optimisticMode, "L2OutputOracle: optimistic mode is enabled"
    self.finalizationPeriodSeconds = _finalizationPeriodSeconds
    self.optimisticMode = True
    log OptimisticModeToggled(enabled=True, finalizationPeriodSeconds=_finalizationPeriodSeconds)


@external
def disableOptimisticMode(_finalizationPeriodSeconds: uint256):
    self._check_owner()
    assert self.optimisticMode, "L2OutputOracle: optimistic mode is not enabled"
    self.finalizationPeriodSeconds = _finalizationPeriodSeconds
    self.optimisticMode = False
    log OptimisticModeToggled(enabled=False, finalizationPeriodSeconds=_finalizationPeriodSeconds)


@external
def transferOwnership(_newOwner: address):
    self._check_owner()
    log OwnershipTransferred(previousOwner=self.owner, newOwner=_newOwner)
    self.owner = _newOwner
