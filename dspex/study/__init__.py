"""What happened: trials, their columns, the records of a study and what they add up to.

- `trial`, `measurement`, `goal`: what people see, what programs say, what a study wants
- `records`: what a log holds; `state`: what records add up to; `table`: its columns
- `seeds`: randomness by purpose and number

Nothing is imported here: an evaluator child needs measurements and records, and no more.
"""
