//! A simulated fabric and target on a virtual clock.
