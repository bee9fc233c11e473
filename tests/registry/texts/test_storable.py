"""Texts that every store can hold."""

from __future__ import annotations

from registry.texts.storable import as_storable


def test_only_what_no_store_can_hold_is_replaced() -> None:
    assert as_storable("a\x00b\ud800c\udfff") == "a\ufffdb\ufffdc\ufffd"
    kept = "tab\t line\n é \U0001f600 \ufffd"
    assert as_storable(kept) == kept
