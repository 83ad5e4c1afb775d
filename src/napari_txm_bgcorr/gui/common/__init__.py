"""Parts that all panels share: worker threads, messages, docking, plots, widgets.

Nothing in this package depends on a panel.
"""
