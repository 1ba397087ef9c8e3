"""Everything that speaks SQL. Functions take a connection and never commit; use cases own the transaction."""
