"""Where a ledger's entries are kept: in memory, in a SQLite file, in etcd."""
