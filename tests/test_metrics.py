"""What Prometheus can see: the list in the documentation, and a scrape of the real processes."""

from types import ModuleType

import pytest

from local.parts import ROOT
from tests.metric_list import PROCESSES, table


@pytest.mark.parametrize("heading", PROCESSES)
def test_the_documentation_lists_every_metric_in_the_words_of_its_help(heading: str) -> None:
    module: ModuleType = PROCESSES[heading]
    text = (ROOT / "docs/observability.md").read_text(encoding="utf-8")
    section = text.partition(f"\n### {heading}\n")[2].partition("\n#")[0]
    assert section.strip() == table(module), f"write this under '### {heading}':\n{table(module)}"
