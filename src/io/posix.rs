//! The fallback on poll(2) and worker threads.
