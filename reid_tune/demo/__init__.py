"""The demo data set: drawn pedestrians in Market-1501's layout, where there is no real data to begin with."""

from reid_tune.demo.dataset import DemoSummary, draw_demo_data

__all__ = ["DemoSummary", "draw_demo_data"]
