"""Studies: many trainings of one task, each made once and stored."""
