//! The pipeline against a scripted peer.
