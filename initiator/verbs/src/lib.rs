//! Verbs fabric.
