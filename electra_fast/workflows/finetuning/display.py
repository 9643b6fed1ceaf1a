"""What fine-tuning shows while it runs: on a terminal a bar for each seed, elsewhere a line for each evaluation."""

from __future__ import annotations

from electra_fast.workflows.pretraining.display import Display


class FinetuneDisplay:
    """Progress on stderr.

    Args:
        seeds: how many there are.
    """

    def __init__(self, seeds: int, metric: str) -> None:
        self._seeds, self._metric = seeds, metric
        self._prefix = ""
        self._bar: Display | None = None
        self._loss = self._best = ""

    def begin(self, seed: int, step: int, total: int) -> None:
        """A seed's training begins, or goes on, at a step."""
        self.close()
        self._prefix = f"seed {seed}, " if self._seeds > 1 else ""
        self._bar = Display(step, total)
        self._loss = self._best = ""

    def say(self, text: str) -> None:
        """A line that stays."""
        (self._bar or Display(0, 1)).say(text)

    def step(self, step: int) -> None:
        if self._bar is not None:
            self._bar.step(step)

    def figures(self, text: str) -> None:
        """What is shown beside the bar."""
        self._loss = text
        if self._bar is not None:
            self._bar.show(f"{self._prefix}{self._loss}{self._best}")

    def evaluation(self, step: int, figures: dict[str, float]) -> None:
        """New figures of the held-out data."""
        self._best = f"  {self._metric} {figures[self._metric]:.4f}"
        loss = f"{self._loss}, " if self._loss else ""
        self.say(f"{self._prefix}step {step:,}: {loss}held out: {described(figures)}")

    def close(self) -> None:
        if self._bar is not None:
            self._bar.close()
            self._bar = None


def described(figures: dict[str, float]) -> str:
    """Figures in one line."""
    return "  ".join(f"{name} {value:.4f}" for name, value in figures.items())
