//! Directories: linear blocks, the hashes, and the htree.
