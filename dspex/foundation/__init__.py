"""Who holds what: the registry, the state store, leases, locks, members."""
