"""Use case: import files of any size. docs/imports.md tells the mapping; each module is one step of the way.

``mapping``: what the columns of a file mean. ``cutting``: a stream into chunks of whole records. ``receiving``: those
into the database. ``reading``: records into rows that mean something. ``orders``: these into events. ``execution``: the
job that works the chunks off. ``progress``: what callers see of it.
"""
