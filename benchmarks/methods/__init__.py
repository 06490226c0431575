"""Every balancing method on the same data with the same budget: what it learns, what it costs."""
