"""HTTP: routes, bodies, problems, cursors and keys. Nothing below knows of it."""
