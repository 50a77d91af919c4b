"""Studies: many training runs of one task, each made once and stored."""
