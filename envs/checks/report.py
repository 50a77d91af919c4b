"""Violations of the contract, and the error that lists them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple


class Violation(NamedTuple):
    """A broken rule of the contract."""

    rule: str
    """Name of the rule."""
    found: str
    """Behaviour of the environment."""
    expected: str
    """Behaviour that the rule requires."""
    advice: str
    """A way to correct it."""

    def __str__(self) -> str:
        return f"{self.rule}: {self.found}; expected {self.expected}. {self.advice}"


class Report:
    """Violations found so far, rules that could not be checked, and remarks about suspicious behaviour."""

    def __init__(self) -> None:
        self.violations: list[Violation] = []
        self.unchecked: list[str] = []
        self.remarks: list[str] = []

    def add(self, rule: str, found: str, expected: str, advice: str) -> None:
        """Add a violation, unless one with the same rule and expectation is there already."""
        if all((old.rule, old.expected) != (rule, expected) for old in self.violations):
            self.violations.append(Violation(rule, found, expected, advice))

    def has(self, rule: str) -> bool:
        """Return whether a rule is broken."""
        return any(violation.rule == rule for violation in self.violations)


class ContractError(AssertionError):
    """A batched environment breaks rules of the contract, `rmc_agents.environment.BatchedEnv`.

    Attributes:
        violations: the broken rules; the message lists them.
    """

    def __init__(self, name: str, violations: Sequence[Violation]) -> None:
        self.violations = tuple(violations)
        rules = "1 rule" if len(violations) == 1 else f"{len(violations)} rules"
        lines = "".join(f"\n- {violation}" for violation in violations)
        super().__init__(f"{name} breaks {rules} of BatchedEnv:{lines}")
