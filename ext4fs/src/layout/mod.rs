//! The structures of the disk: fields and offsets, no logic.
