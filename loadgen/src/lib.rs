//! loadgen: the flash sale, put through a Kafka-compatible broker and judged.
//!
//! ```text
//! orders ──> produce ──> broker ──> consume ──> lane ──> governor ──> sink ──> store
//!            (open loop)            (a group)  (workers) (the model)  (rows are real)
//! ```
//!
//! - the arithmetic: [`model`]; the orders and their times: [`orders`]
//! - the database: [`governor`] models how fast it is, [`store`] and [`sink`] write real rows

pub mod failure;
pub mod governor;
pub mod lane;
pub mod model;
pub mod orders;
pub mod sink;
pub mod store;
