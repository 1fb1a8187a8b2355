"""The ledger's part that knows agents: where each is, and what each has kept."""
