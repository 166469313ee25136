"""What the proposer runs on: the local devnet and the deployment material. Imports none of the other rooms."""
