"""How a study proceeds: events in, commands out; and the ports through which it acts.

- `engine`: the state machine; `messages`: its events and commands; `settings`: the rules of a
  session; `judge`: what ended trials say about going on
- `ports`: what the engine needs from outside: Executor, Log, Observer

Nothing is imported here: an evaluator child needs the ports, and no more.
"""
