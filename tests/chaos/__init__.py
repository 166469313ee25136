"""`make chaos`: kill the proposer at every place that matters while everything around it fails, and judge what is left.

Kill points are chosen from outside the product: by the devnet's stand-ins and by a proxy in front of PostgreSQL.
"""
