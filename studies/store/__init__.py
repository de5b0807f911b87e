"""The store: databases, records, drivers and the ledger."""
