"""What people need to test their own parts of dspex: conformance suites, doubles, simulators.

Knows: every room. Must not be known by: any of them.

- `programs`, `strategies`, `executors`, `logs`: one conformance suite per protocol; subclass it in
  a test file of your own and say how to make your object
- `simulation`: a cluster in virtual time, with deaths, delays and crashes drawn from a seed
- `registries`, `registry_handles`: what a backend of the registry keeps, and the registry on it
- `backends`: a backend of the registry in memory, to test on and to read
- `histories`, `models`, `linearizability`: what clients saw, written down by several processes, and
  whether an atomic object could have shown it to them
- `probe`: a program that hangs, crashes, exits or allocates as its params say
- `leaks`: whether a block of code left processes or open files behind

Nothing is imported here, so that each part loads only what it needs.
"""
