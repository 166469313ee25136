"""`make bench`: what the proposer costs and how long it makes a settlement wait, measured on real parts in one run."""
