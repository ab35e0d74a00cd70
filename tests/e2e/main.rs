//! A whole broker with real sockets and files: real clients (librdkafka and a pure Rust one), raw
//! conversations where a client library would hide what is looked at, and bad input.

mod admin;
mod broker;
mod clients;
mod conversation;
mod cores;
mod crash;
mod denied;
mod descriptors;
mod disk;
mod dlq;
mod hostile;
mod lag;
mod limits;
mod loop_disk;
mod overload;
mod repeats;
mod restart;
mod steering;
