//! A small cache that forgets what was used longest ago.

use std::sync::{Mutex, PoisonError};

/// Values that one lock guards at most: so many that chance seldom gives a set more keys than it holds while others have room.
const WAYS: usize = 64;

/// At most `capacity` values, rounded up to whole sets, shared between threads: each key belongs to one of several sets with a lock of its own.
#[derive(Debug)]
pub(crate) struct Cache<V> {
    sets: Box<[Mutex<Vec<Held<V>>>]>,
    /// Values of a set.
    ways: usize,
}

#[derive(Debug)]
struct Held<V> {
    key: u64,
    value: V,
}

impl<V: Clone> Cache<V> {
    pub(crate) fn new(capacity: usize) -> Self {
        let ways = capacity.clamp(1, WAYS);
        Self { sets: (0..capacity.div_ceil(ways).max(1)).map(|_| Mutex::new(Vec::new())).collect(), ways }
    }

    fn set(&self, key: u64) -> &Mutex<Vec<Held<V>>> {
        // Keys are offsets, whose low bits tell little: the high half of a product with an odd number spreads them.
        let spread = key.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 32;
        &self.sets[(spread % self.sets.len() as u64) as usize]
    }

    pub(crate) fn get(&self, key: u64) -> Option<V> {
        let mut set = self.set(key).lock().unwrap_or_else(PoisonError::into_inner);
        let at = set.iter().position(|held| held.key == key)?;
        // The one used last goes to the end.
        set[at..].rotate_left(1);
        set.last().map(|held| held.value.clone())
    }

    pub(crate) fn insert(&self, key: u64, value: V) {
        let mut set = self.set(key).lock().unwrap_or_else(PoisonError::into_inner);
        set.retain(|held| held.key != key);
        if set.len() >= self.ways {
            set.remove(0);
        }
        set.push(Held { key, value });
    }

    pub(crate) fn clear(&self) {
        self.sets.iter().for_each(|set| set.lock().unwrap_or_else(PoisonError::into_inner).clear());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_one_used_longest_ago_goes_first() {
        let cache = Cache::new(8);
        (0..8).for_each(|key| cache.insert(key, key));
        assert_eq!(cache.get(0), Some(0));
        cache.insert(100, 100);
        assert_eq!((cache.get(0), cache.get(1), cache.get(2), cache.get(100)), (Some(0), None, Some(2), Some(100)));
        cache.insert(2, 7);
        assert_eq!(cache.get(2), Some(7));
        cache.clear();
        assert_eq!(cache.get(2), None);
    }
}
