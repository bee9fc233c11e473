"""A campaign of kills against one registry after the other; see ``benchmarks/faults.py``.

``director`` starts processes, each with a part of ``parts`` to play (``player`` is their program),
kills them and the servers at random moments, and has ``checks`` look at what is left. What a
process was promised it notes in a ``journal`` before it goes on; ``tally`` counts what they say,
``report`` writes it down.
"""
