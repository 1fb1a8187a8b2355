"""Where an evaluation runs: in this process, or in an evaluator child; no Dask.

- `driver`: the ring that runs a study; `audience`: its observers as one
- `inprocess`: an executor without a cluster
- `evaluation`: one evaluation, wherever it runs
- `payload`: a program and its data, packed to travel
- `pool`: the evaluator children of one process; `process`: one of them seen from its parent;
  `child`: seen from within; `frames`: what the two say to each other; `chunk`: what is known of
  a chunk in progress

Nothing is imported here: a child should load what it needs, and no more.
"""
