//! What was made once for a schema, or why it could not be.

use std::borrow::Borrow;
use std::collections::HashMap;
use std::hash::Hash;
use std::sync::{Arc, PoisonError, RwLock};

/// Most that is kept at once.
const MOST: usize = 1_000;

/// What was made, or why it could not be.
pub(super) type Made<V> = Result<Arc<V>, String>;

/// What was made, by what it was made for.
#[derive(Debug)]
pub(super) struct Cache<K, V>(RwLock<HashMap<K, Made<V>>>);

impl<K, V> Default for Cache<K, V> {
    fn default() -> Self {
        Self(RwLock::default())
    }
}

impl<K: Hash + Eq, V> Cache<K, V> {
    /// What was made for `key`; otherwise makes it. An error of `make` is not kept.
    pub(super) fn get<Q, E>(
        &self,
        key: &Q,
        make: impl FnOnce() -> Result<Made<V>, E>,
    ) -> Result<Made<V>, E>
    where
        K: Borrow<Q>,
        Q: Hash + Eq + ToOwned<Owned = K> + ?Sized,
    {
        let known = self.0.read().unwrap_or_else(PoisonError::into_inner).get(key).cloned();
        if let Some(known) = known {
            return Ok(known);
        }
        let made = make()?;
        let mut all = self.0.write().unwrap_or_else(PoisonError::into_inner);
        if MOST <= all.len() {
            all.clear();
        }
        all.insert(key.to_owned(), made.clone());
        Ok(made)
    }
}
