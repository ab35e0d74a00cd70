//! Power cuts at every single operation of a short life: nothing durable is ever lost.
//!
//! x
