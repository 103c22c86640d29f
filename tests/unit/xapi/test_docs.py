"""The page on the pool client says what the code does."""

from __future__ import annotations

from pathlib import Path

from holdfast.xapi.retry import CALL_RULES, READ_RULES, REMOVAL_RULES, RetryRule

PAGE = Path(__file__).parents[3] / "docs" / "pool-client.md"


def _rows() -> list[str]:
    scopes = (
        ("every call", CALL_RULES),
        ("calls that only read", READ_RULES[len(CALL_RULES) :]),
        ("removing", REMOVAL_RULES[len(READ_RULES) :]),
    )
    return [_row(rule, scope) for scope, rules in scopes for rule in rules]


def _row(rule: RetryRule, scope: str) -> str:
    answers = ", ".join(f"`{each}`" for each in sorted(rule.answers))
    wait = (
        f"{rule.wait_s_min:g}–{rule.wait_s_max:g} s" if rule.wait_s_min < rule.wait_s_max else f"{rule.wait_s_min:g} s"
    )
    attempts = str(rule.attempts_max)
    if rule.attempts_brief_max is not None:
        attempts = f"{rule.attempts_brief_max}; in a run {attempts}"
    return f"| {answers} | {scope} | {attempts} | {wait} | {rule.why} |"


def test_the_page_on_the_pool_client_shows_the_retry_table_as_it_is() -> None:
    page = PAGE.read_text(encoding="utf-8")
    missing = [row for row in _rows() if row not in page]
    assert not missing, "put these rows into docs/pool-client.md:\n" + "\n".join(missing)
    table = page.split("<!-- retry table")[1].split("\n\n")[0]
    assert table.count("\n|") == len(_rows()) + 2
