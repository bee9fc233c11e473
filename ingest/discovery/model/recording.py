"""Hooks that record activations of a model."""

from __future__ import annotations

from dataclasses import dataclass, field

from torch import Tensor

from ingest.discovery.model.anatomy import Hook

__all__ = ["Recording"]


@dataclass(eq=False)
class Recording:
    """Activations of one run by hook name, with gradients if the run has them.

    Attributes:
        rows: Prompts that are recorded; the memory of the others can be freed. None: all.
        values: Values at each hook point, filled by the hooks made here.
        gradients: Gradients of the values kept with gradients, filled by the backward pass.
    """

    rows: slice | None = None
    values: dict[str, Tensor] = field(default_factory=dict)
    gradients: dict[str, Tensor] = field(default_factory=dict)

    def keep(self, name: str) -> tuple[str, Hook]:
        """Return a hook that records the tensor and passes it on."""

        def remember(value: Tensor, hook: object) -> Tensor:  # noqa: ARG001  called by keyword
            self.values[name] = self._few(value)
            return value  # the model must continue with the tensor that is differentiated

        return name, remember

    def keep_with_gradient(self, name: str) -> tuple[str, Hook]:
        """Return a hook that records the tensor, detached from the graph, and its gradient."""

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
        """Return a hook that records a view that only the next norm reads, not the skip path."""

        def remember(value: Tensor, hook: object) -> Tensor:  # noqa: ARG001
            self.values[name] = value.view_as(value)
            return self.values[name]

        return name, remember

    def start(self, name: str) -> tuple[str, Hook]:
        """Return a hook at the first block's input where the gradient graph begins."""

        def remember(value: Tensor, hook: object) -> Tensor:  # noqa: ARG001
            self.values[name] = value.detach().requires_grad_()
            return self.values[name]

        return name, remember
