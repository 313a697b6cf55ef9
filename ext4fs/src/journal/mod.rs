//! The journal (jbd2): scanning and replay.
