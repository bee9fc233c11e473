"""A fact: a prompt about a subject, the answer it should give, and the answer it gives now.

Next to the prompt a fact may have paraphrases, which should give the new answer too, and prompts
about similar subjects (neighbours), which should keep the true one.
"""

from __future__ import annotations

from dataclasses import dataclass

from registry.errors import BadInput

__all__ = ["SUBJECT", "Fact", "as_answer"]

SUBJECT = "{}"
"""Stands for the subject in a prompt."""


@dataclass(frozen=True, slots=True)
class Fact:
    """One fact.

    Attributes:
        prompt: A text with ``{}`` once, where the subject is: ``The capital of {} is``.
        subject: The subject: ``France``.
        target_new: The answer after the edit, as it is written alone: ``Rome``.
        target_true: The answer now; None if the source does not give it.
        paraphrases: Whole prompts with the same meaning.
        neighbours: Whole prompts about similar subjects, whose answer is ``target_true``.
        case: The source's own name or number of the fact, or None.

    Raises:
        BadInput: The prompt does not have ``{}`` exactly once, or a text is empty.
    """

    prompt: str
    subject: str
    target_new: str
    target_true: str | None = None
    paraphrases: tuple[str, ...] = ()
    neighbours: tuple[str, ...] = ()
    case: int | str | None = None

    def __post_init__(self) -> None:
        if self.prompt.count(SUBJECT) != 1:
            raise BadInput(
                f"the prompt {self.prompt[:60]!r} needs {SUBJECT} once, where its subject is"
            )
        texts = {
            "subject": self.subject, "target_new": self.target_new,
            "target_true": "-" if self.target_true is None else self.target_true,
        }  # fmt: skip
        for name, text in texts.items():
            if not text.strip():
                raise BadInput(f"{name} of {self.prompt[:60]!r} is empty")
        for name in ("paraphrases", "neighbours"):
            if not all(one.strip() for one in getattr(self, name)):
                raise BadInput(f"{name} of {self.prompt[:60]!r} have an empty text")

    @property
    def text(self) -> str:
        """The prompt with its subject."""
        return self.prompt.replace(SUBJECT, self.subject)

    @property
    def subject_end(self) -> int:
        """Index in :attr:`text` of the character after the subject."""
        return self.prompt.index(SUBJECT) + len(self.subject)


def as_answer(target: str) -> str:
    """Return a target as it follows a prompt: with one space before it, unless it begins with one.

    Tokenizers read ``Rome`` and `` Rome`` as different tokens, and only the second one follows a
    prompt (EasyEdit, issue 390).
    """
    return target if target[:1].isspace() else f" {target}"
