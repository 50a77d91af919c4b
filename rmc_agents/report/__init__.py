"""Documents: tables, comparisons, the HTML report."""
