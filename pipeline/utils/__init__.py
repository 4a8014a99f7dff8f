"""Small helpers: random draws, schedules, ranks, memory, signals."""
