//! The protocol's unit tests, one file a phase: set a state, one call, compare the effects.
