"""The promises of docs/reliability.md, tried: ``python -m torture [--only NAME …] [--small]``.

One module a promise. Each does to a service of its own, on loopback and in folders that are thrown away, what the
promise says it bears, and answers findings: what was tried, the figure, the bound. Mutants (``--mutant``) break the
service on purpose, and have to be found.
"""
