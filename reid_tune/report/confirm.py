"""What the stage `confirm` has decided, and why."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from reid_tune.report.summary import trial_label
from reid_tune.report.svg import COLOURS, render_svg

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["confirm_chart", "tied_candidates", "explain_winner"]

_ENOUGH = 3  # repeats
# Mark and line of each repeat.
_REPEATS = (
    ("o", "-"),
    ("s", (0, (5, 2))),
    ("^", ":"),
    ("D", (0, (4, 1, 1, 1))),
    ("v", (0, (2, 1))),
    ("P", (0, (8, 2))),
)


def tied_candidates(found: dict[str, Any]) -> list[int]:
    """The best candidate by its mean, and those that it does not beat beyond noise; found: the stage's result."""
    rows = found["trials"]
    return [row["number"] for row in rows if not row["best_against_it"] or row["best_against_it"]["low"] <= 0]


def explain_winner(found: dict[str, Any], costs: Sequence[str]) -> str:
    """Why the winner is the winner, in words.

    Args:
        found: The stage's result.
        costs: The sweep's further objectives.
    """
    best, equals = found["best"], tied_candidates(found)
    out = f" Out, as a repeat failed: {_names(found['failed'])}." if found["failed"] else ""
    if found["repeats"] < _ENOUGH:
        out += f" With confirm.seeds below {_ENOUGH} the interval does not show what a seed is worth."
    if equals == [best]:
        others = "and no other trial was repeated" if len(found["trials"]) == 1 else "and beats each other beyond noise"
        return f"{_names([best]).capitalize()} has the best mean, {others}.{out}"
    rule = f"costs the least ({', then '.join(costs)}), and is the earliest of equals" if costs else "is the earliest"
    if found["winner"] == best and not costs:
        return f"No trial beats {_names([best])} beyond noise, and it is the earliest of its equals.{out}"
    noise = _names([number for number in equals if number != best])
    return (
        f"{_names([best]).capitalize()} has the best mean, but does not beat {noise} beyond noise; "
        f"of these, trial {found['winner']} {rule}.{out}"
    )


def _names(numbers: Sequence[int]) -> str:
    *others, last = map(str, numbers)
    return f"trials {', '.join(others)} and {last}" if others else f"trial {last}"


def confirm_chart(found: dict[str, Any], metric: str) -> str:
    """The repeats of each candidate, those of one hold-out marked and joined alike, and their means.

    Args:
        found: The stage's result.
    """
    rows = sorted(found["trials"], key=lambda row: (-row["mean"], row["number"]))

    def draw(axes: "Axes") -> None:
        for repeat in range(found["repeats"]):
            mark, line = _REPEATS[repeat % len(_REPEATS)]
            axes.plot(
                [100 * row["values"][repeat] for row in rows],
                color=COLOURS["blue"],
                linestyle=line,
                linewidth=0.8,
                marker=mark,
                markersize=5,
                markerfacecolor="none",
                label=f"repeat {repeat + 1}",
            )
        for at, row in enumerate(rows):
            mean, won = 100 * row["mean"], row["number"] == found["winner"]
            colour, width = ("orange", 4.0) if won else ("ink", 2.0)
            axes.plot([at - 0.28, at + 0.28], [mean, mean], color=COLOURS[colour], linewidth=width, zorder=1)
            axes.annotate(f"{mean:.1f}", (at + 0.31, mean), va="center", fontsize=9)
        names = [trial_label(row["number"]) + "\nwinner" * (row["number"] == found["winner"]) for row in rows]
        axes.set_xticks(range(len(rows)), names)
        axes.set(xlim=(-0.5, len(rows) - 0.2), xlabel="trial", ylabel=f"{metric} %")
        # Above, where no point can be.
        axes.legend(frameon=False, fontsize=9, ncols=3, loc="lower center", bbox_to_anchor=(0.5, 1.0))

    return render_svg(draw, f"{metric} of the repeated trials on each hold-out, and their means")
