"""What a running campaign tells whoever watches; the base class watches nothing."""

from __future__ import annotations


class Progress:
    """Override what you want to see. Nothing here may change the campaign."""

    def round(self, number: int, rounds: int) -> None:
        """Round `number` of `rounds` begins; 0 is the initial design."""

    def verb(self, name: str) -> None:
        """The round goes on to this verb."""

    def step(self, step: int, loss: float) -> None:
        """The sampler made one training step."""

    def queries(self, n: int) -> None:
        """N queries were dispatched."""

    def answered(self) -> None:
        """One more of them was answered and recorded."""

    def recorded(self, number: int) -> None:
        """Round `number` is complete in the ledger."""

    def note(self, text: str) -> None:
        """One line that a person should read, such as what was left out of a file."""


class Several(Progress):
    """Tells several watchers, in order."""

    def __init__(self, *watchers: Progress) -> None:
        self.watchers = watchers

    def round(self, number: int, rounds: int) -> None:
        """Round `number` of `rounds` begins."""
        for watcher in self.watchers:
            watcher.round(number, rounds)

    def verb(self, name: str) -> None:
        """The round goes on to this verb."""
        for watcher in self.watchers:
            watcher.verb(name)

    def step(self, step: int, loss: float) -> None:
        """The sampler made one training step."""
        for watcher in self.watchers:
            watcher.step(step, loss)

    def queries(self, n: int) -> None:
        """N queries were dispatched."""
        for watcher in self.watchers:
            watcher.queries(n)

    def answered(self) -> None:
        """One more of them was answered."""
        for watcher in self.watchers:
            watcher.answered()

    def recorded(self, number: int) -> None:
        """Round `number` is complete."""
        for watcher in self.watchers:
            watcher.recorded(number)

    def note(self, text: str) -> None:
        """One line that a person should read."""
        for watcher in self.watchers:
            watcher.note(text)
