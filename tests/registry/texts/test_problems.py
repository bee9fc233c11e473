"""Faults of records in plain words."""

from __future__ import annotations

from typing import Annotated, Any, Literal

import pytest
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from registry.texts.problems import first_problem


class Thing(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=False)

    name: Annotated[str, Field(min_length=2, max_length=4)] = "ab"
    share: Annotated[float, Field(gt=0, le=1, allow_inf_nan=False)] = 1.0
    number: Annotated[int, Field(ge=1, lt=10)] = 1
    flag: bool = True
    kind: Literal["a", "b"] = "a"
    many: tuple[int, ...] = ()

    @field_validator("flag")
    @classmethod
    def _only_true(cls, flag: bool) -> bool:
        if not flag:
            raise ValueError("has to be set")
        return flag


class Whole(BaseModel):
    thing: Thing


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ({}, "thing: missing"),
        ({"thing": 3}, "thing: must have fields of its own, is 3"),
        ({"thing": {"colour": 1}}, "thing.colour: there is no such field"),
        ({"thing": {"share": 1.5}}, "thing.share: must be at most 1, is 1.5"),
        ({"thing": {"share": 0}}, "thing.share: must be more than 0, is 0"),
        ({"thing": {"share": "x"}}, "thing.share: must be a number, is 'x'"),
        ({"thing": {"share": float("nan")}}, "thing.share: must be a finite number, is nan"),
        ({"thing": {"number": 0}}, "thing.number: must be at least 1, is 0"),
        ({"thing": {"number": 10}}, "thing.number: must be less than 10, is 10"),
        ({"thing": {"number": "1.5"}}, "thing.number: must be a whole number, is '1.5'"),
        ({"thing": {"number": 1.5}}, "thing.number: must be a whole number, is 1.5"),
        ({"thing": {"flag": "perhaps"}}, "thing.flag: must be true or false, is 'perhaps'"),
        ({"thing": {"flag": False}}, "thing.flag: has to be set"),
        ({"thing": {"kind": "c"}}, "thing.kind: must be 'a' or 'b', is 'c'"),
        ({"thing": {"name": 3}}, "thing.name: must be text, is 3"),
        ({"thing": {"name": "x"}}, "thing.name: must have 2 or more characters, is 'x'"),
        ({"thing": {"name": "x" * 99}}, "thing.name: must have at most 4 characters"),
        ({"thing": {"many": "x"}}, "thing.many: must be a list, is 'x'"),
        ({"thing": {"many": [1, "x"]}}, "thing.many.1: must be a whole number, is 'x'"),
        ({"thing": {"share": 2, "number": 0}}, "thing.share: must be at most 1, is 2 (and 1 more)"),
        ({"thing": {"many": "x" * 200}}, f"thing.many: must be a list, is '{'x' * 79}..."),
    ],
)
def test_a_fault_is_told_in_plain_words(given: Any, says: str) -> None:
    with pytest.raises(ValidationError) as caught:
        Whole.model_validate(given)
    assert first_problem(caught.value) == says
