"""The demo data set: drawn pedestrians in Market-1501's layout, for first steps without real data."""

from reid_tune.demo.dataset import DemoSummary, draw_demo_data

__all__ = ["DemoSummary", "draw_demo_data"]
