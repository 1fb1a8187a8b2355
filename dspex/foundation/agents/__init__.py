"""What agents, their hosts and those who call them agree on, as pure state machines."""
