//! Stub.
#![allow(missing_docs)]
pub struct Config {
    pub io: crate::io::backend::Choice,
    pub listen: std::net::SocketAddr,
    pub data_dir: std::path::PathBuf,
    pub node_id: i32,
    pub cores: Vec<Option<usize>>,
    pub advertise: Option<(String, u16)>,
    pub broker_settings: std::collections::BTreeMap<String, String>,
}
