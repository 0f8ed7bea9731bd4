//! The demo's bundled files, and the summary that is read back from what was committed.

pub mod assets;
pub mod records;
pub mod summary;
