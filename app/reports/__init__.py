"""Use cases: reports, what a chart of the whole workspace needs; one module a report.

Scores come from a stored run, orders and interactions from the events themselves. Money is exact; shares and means are
floats, null where they would divide by nothing.
"""
