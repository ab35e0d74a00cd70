//! What every layer may use: ids, error codes, limits, time, random numbers, and the one seam
//! through which pure code sees a directory. Nothing here does IO by itself.

pub mod dir;
pub mod disk_space;
pub mod error_code;
pub mod ids;
pub mod limits;
pub mod marks;
pub mod placement;
pub mod planted;
pub mod prng;
pub mod stats;
pub mod time;

pub use dir::FetchPath;
pub use disk_space::{DiskSpace, Room, Space};
pub use error_code::ErrorCode;
pub use ids::{ConnectionId, Epoch, NodeId, Offset, PartitionKey, ShardId, TopicId};
pub use stats::ShardStats;
pub use time::{Mono, Now, WallMs};

/// A list that mostly has one entry, and then needs no memory of its own: what a request is made
/// of on its way through a shard.
pub type Few<T> = smallvec::SmallVec<[T; 1]>;
