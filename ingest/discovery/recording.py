"""Hooks that remember what flows through a model."""

from __future__ import annotations

from dataclasses import dataclass, field

from torch import Tensor

from ingest.discovery.anatomy import Hook

__all__ = ["Recording"]


@dataclass(eq=False)
class Recording:
    """Activations of one run by hook name, with gradients where the run has them.

    Attributes:
        values: What each hook point saw, filled by the hooks made here.
    """

    values: dict[str, Tensor] = field(default_factory=dict)

    def keep(self, name: str) -> tuple[str, Hook]:
        """Hook that remembers the tensor that flows on."""

        def remember(value: Tensor, hook: object) -> Tensor:  # noqa: ARG001  called by keyword
            self.values[name] = value
            return value  # what the model goes on with must be what is differentiated

        return name, remember

    def fork(self, name: str) -> tuple[str, Hook]:
        """Hook that remembers a copy which only the norm after it reads, not the skip path."""

        def remember(value: Tensor, hook: object) -> Tensor:  # noqa: ARG001
            self.values[name] = value.view_as(value)
            return self.values[name]

        return name, remember

    def start(self, name: str) -> tuple[str, Hook]:
        """Hook at the first block's input where the gradient graph begins."""

        def remember(value: Tensor, hook: object) -> Tensor:  # noqa: ARG001
            self.values[name] = value.detach().requires_grad_()
            return self.values[name]

        return name, remember
