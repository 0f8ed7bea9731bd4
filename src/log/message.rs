//! What a transaction writes: one message for each row and one manifest for each batch.
//!
//! Both logs use it, so that a reader cannot tell them apart. Pure: no client, no clock.
