//! Damage of every sort, and what the plan makes of it.
