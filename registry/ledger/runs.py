"""Queries for runs and their results."""

from __future__ import annotations

from typing import Any

from sqlalchemy import ColumnElement, Connection, Select, and_, or_, select

from registry.ledger import tables
from registry.ledger.base import Made, RunFilter
from registry.ledger.looking_up import circuit_entries, is_of_task, records
from registry.records import Edit, Evaluation

__all__ = ["find_runs", "made_by"]


def find_runs(which: RunFilter) -> Select[Any]:
    """The query for the runs of a filter."""
    columns = tables.runs.c
    conditions: list[ColumnElement[bool]] = []
    if which.status is not None:
        conditions.append(columns.status == which.status.value)
    if which.job is not None:
        conditions.append(columns.job == which.job)
    if which.since is not None:
        conditions.append(columns.started_at >= which.since)
    if which.models:
        conditions.append(
            _of(columns.configuration["model"], tables.circuits.c.model, which.models)
        )
    if which.task is not None:
        conditions.append(_of_task(which.task))
    return select(tables.runs).where(and_(True, *conditions))


def made_by(connection: Connection, run: str) -> Made:
    """The results of a run; see ``Ledger.made_by``."""
    made, circuits = tables.circuit_runs.c, tables.circuits
    found = select(made.circuit).where(made.run == run)
    entries = select(circuits).where(circuits.c.id.in_(found)).order_by(circuits.c.id)
    measured, edited = tables.evaluations, tables.edits
    evaluations = select(measured).where(measured.c.run == run)
    edits = select(edited).where(edited.c.run == run)
    order = (measured.c.recorded_at, measured.c.position, measured.c.id)
    edit_order = (edited.c.recorded_at, edited.c.position, edited.c.id)
    return Made(
        circuits=circuit_entries(connection, entries),
        evaluations=records(connection, Evaluation, evaluations.order_by(*order)),
        edits=records(connection, Edit, edits.order_by(*edit_order)),
    )


def _of(configured: Any, column: ColumnElement[Any], names: frozenset[str]) -> ColumnElement[bool]:
    """Whether a run has one of these names in its configuration, or made a circuit with one."""
    return or_(configured.as_string().in_(names), _made_circuit(column.in_(names)))


def _of_task(task: str) -> ColumnElement[bool]:
    """The same condition for a task or the first part of its name."""
    configured = tables.runs.c.configuration["task"].as_string()
    return or_(
        is_of_task(configured, task), _made_circuit(is_of_task(tables.circuits.c.task, task))
    )


def _made_circuit(condition: ColumnElement[bool]) -> ColumnElement[bool]:
    made = tables.circuit_runs.c
    return (
        select(made.circuit)
        .join(tables.circuits, tables.circuits.c.id == made.circuit)
        .where(made.run == tables.runs.c.id, condition)
        .exists()
    )
