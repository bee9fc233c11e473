"""A campaign of kills against a series of registries; see ``benchmarks/faults.py``.

``director`` starts processes, each with a part of ``parts`` (``player`` is their program). It kills
them and the servers at random times, and runs ``checks`` on the result. A process writes what was
acknowledged into a ``journal`` before it continues. ``tally`` counts the entries, and ``report``
writes the report.
"""
