"""Numbers → JSON, CSV, tables and figures."""
