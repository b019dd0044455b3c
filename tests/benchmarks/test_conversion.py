"""The page on conversion says what the code does."""

from benchmarks.conversion import OUT, RULES_HEAD, rules
from benchmarks.markdown import table


def test_the_rules_of_the_page_are_those_of_the_code():
    assert table(RULES_HEAD, rules()) in OUT.read_text()
