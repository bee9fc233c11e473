"""Named questions, comparison statistics and reports.

Every command that compares circuits is a function that takes an open ``Registry`` and returns a
frozen result with ``to_frame()``, and ``plot()`` where there is something to see:

- :func:`queries.comparing.compare_circuits`, and ``compare_pairs`` for many at once
- :func:`queries.matrix.circuit_matrix`
- :func:`queries.shared.shared_subgraph`
- :func:`queries.reuse.reuse`
- :func:`queries.stability.stability`
- :func:`queries.choosing.choose_circuits`, which says what stands for a task in all of these
"""
