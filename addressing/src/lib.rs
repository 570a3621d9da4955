//! Names of SRP ports.
#![forbid(unsafe_code)]
