//! Text models.
use std::path::Path;
/// Options.
#[derive(Debug, Clone)]
pub struct Options {
    pub field: String,
    pub precision: crate::config::Precision,
    pub on_long: crate::config::OnLong,
    pub max_length: Option<u32>,
    pub device: String,
}
/// Error.
#[derive(Debug, thiserror::Error)]
#[error("not built")]
pub struct Error;
/// Load.
pub fn load(_dir: &Path, _options: &Options) -> Result<Box<dyn super::Model>, Error> {
    Err(Error)
}
