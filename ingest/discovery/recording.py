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
        rows: Prompts that are remembered, so that the others' memory can be given back; None: all.
        values: What each hook point saw, filled by the hooks made here.
        gradients: Of the values kept with theirs, filled by the backward pass.
    """

    rows: slice | None = None
    values: dict[str, Tensor] = field(default_factory=dict)
    gradients: dict[str, Tensor] = field(default_factory=dict)

    def keep(self, name: str) -> tuple[str, Hook]:
        """Hook that remembers the tensor that flows on."""

        def remember(value: Tensor, hook: object) -> Tensor:  # noqa: ARG001  called by keyword
            self.values[name] = self._few(value)
            return value  # what the model goes on with must be what is differentiated

        return name, remember

    def keep_with_gradient(self, name: str) -> tuple[str, Hook]:
        """Hook that remembers the tensor that flows on, apart from the graph, and its gradient."""

        def remember(value: Tensor, hook: object) -> Tensor:  # noqa: ARG001
            self.values[name] = self._few(value.detach())
            value.register_hook(  # type: ignore[no-untyped-call]
                lambda gradient: self._note(name, gradient)
            )
            return value

        return name, remember

    def _note(self, name: str, gradient: Tensor) -> None:
        self.gradients[name] = self._few(gradient)

    def _few(self, value: Tensor) -> Tensor:
        return value if self.rows is None else value[self.rows].clone()

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
