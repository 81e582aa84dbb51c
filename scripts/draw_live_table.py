"""Draw the README's picture of the live table from the log of a real sweep.

python scripts/draw_live_table.py runs/quickstart/events.jsonl docs/live-table.svg
"""

import io
import re
import sys

from rich.console import Console, Group
from rich.text import Text

from reid_tune.files import write_atomic
from reid_tune.journal.costs import CostLedger
from reid_tune.journal.event_log import read_events
from reid_tune.journal.events import EpochReported
from reid_tune.journal.state import replay
from reid_tune.report.live import status_text
from reid_tune.report.tables import leaderboard


def main(log: str, picture: str) -> None:
    events = read_events(log)
    reports = [i for i, event in enumerate(events) if isinstance(event, EpochReported) and "mAP" in event.metrics]
    past_events = events[: reports[len(reports) * 3 // 4] + 1]
    state = replay(past_events)
    trials = state.header.sweep["budget"]["trials"]
    console = Console(record=True, width=112, file=io.StringIO(), force_terminal=True)
    console.print("$ reid-tune sweep search_spaces/quickstart.yaml")
    status = status_text(state, trials, CostLedger(past_events).total())
    console.print(Group(leaderboard(state), Text(status, style="dim")))
    # The fonts that rich names are on a server; any monospaced one will do.
    write_atomic(picture, re.sub(r"@font-face \{.*?\}", "", console.export_svg(title="reid-tune"), flags=re.DOTALL))


if __name__ == "__main__":
    main(*sys.argv[1:])
