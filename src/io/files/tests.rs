//! What a directory promises.
