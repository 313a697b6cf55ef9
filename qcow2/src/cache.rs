//! A small cache that forgets what was used longest ago.

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::{Mutex, PoisonError};

/// At most `capacity` values, shared between threads.
#[derive(Debug)]
pub(crate) struct Cache<K, V> {
    capacity: usize,
    inner: Mutex<Inner<K, V>>,
}

#[derive(Debug)]
struct Inner<K, V> {
    values: HashMap<K, (u64, V)>,
    clock: u64,
}

impl<K: Copy + Eq + Hash, V: Clone> Cache<K, V> {
    pub(crate) fn new(capacity: usize) -> Self {
        Self { capacity: capacity.max(1), inner: Mutex::new(Inner { values: HashMap::new(), clock: 0 }) }
    }

    pub(crate) fn get(&self, key: K) -> Option<V> {
        let mut inner = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
        inner.clock += 1;
        let now = inner.clock;
        let (used, value) = inner.values.get_mut(&key)?;
        *used = now;
        Some(value.clone())
    }

    pub(crate) fn insert(&self, key: K, value: V) {
        let mut inner = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
        inner.clock += 1;
        let now = inner.clock;
        if inner.values.len() >= self.capacity && !inner.values.contains_key(&key) {
            // Capacities are a few hundred at most, and a miss costs a read: a scan is cheap beside it.
            if let Some(oldest) = inner.values.iter().min_by_key(|(_, (used, _))| *used).map(|(key, _)| *key) {
                inner.values.remove(&oldest);
            }
        }
        inner.values.insert(key, (now, value));
    }

    pub(crate) fn remove(&self, key: K) {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner).values.remove(&key);
    }

    pub(crate) fn clear(&self) {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner).values.clear();
    }
}
