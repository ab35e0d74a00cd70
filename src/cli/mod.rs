//! To be written.

pub mod log_dump;
