//! What fuzzing looks at: one function per target, from bytes to invariants. libFuzzer calls them
//! (`scripts/fuzz`), and `tests/replay.rs` runs the kept corpus through them on any toolchain.
//!
//! Every target holds that nothing panics, that nothing runs without end, and that memory follows
//! the bytes of the input ([`memory`]); what else it holds stands at its function. Checksums are
//! set right where an input asks for it: whoever attacks can compute a CRC, a fuzzer cannot.

mod batches;
mod connection;
mod files;
pub mod machine;
pub mod memory;
mod messages;
mod recovery;
pub mod seeds;
mod start;

pub use batches::{batch, codec};
pub use connection::connection;
pub use messages::{request, response, stored};
pub use recovery::recovery;
pub use start::start;

/// Something to fuzz.
pub struct Target {
    /// Its function, its binary, and its folder in the corpus.
    pub name: &'static str,
    /// Looks at one input; a panic is a finding.
    pub run: fn(&[u8]),
}

/// Every target.
pub const TARGETS: &[Target] = &[
    Target {
        name: "request",
        run: request,
    },
    Target {
        name: "response",
        run: response,
    },
    Target {
        name: "stored",
        run: stored,
    },
    Target {
        name: "codec",
        run: codec,
    },
    Target {
        name: "batch",
        run: batch,
    },
    Target {
        name: "recovery",
        run: recovery,
    },
    Target {
        name: "start",
        run: start,
    },
    Target {
        name: "connection",
        run: connection,
    },
];
