//! Maps by the small numbers that name things here.
//!
//! They are looked up for every request and completion, and no peer chooses them: a table that resists collisions made on
//! purpose would cost more than the rest of the look-up. Collisions go to the next place, and half of the places at
//! least are empty.

use super::request::{LunKey, SessionKey};
use crate::fabric::QueuePairId;

/// Something named by a number.
pub(super) trait Name: Copy + Eq {
    fn number(self) -> u32;
}

impl Name for LunKey {
    fn number(self) -> u32 {
        self.0
    }
}

impl Name for SessionKey {
    fn number(self) -> u32 {
        self.0
    }
}

impl Name for QueuePairId {
    fn number(self) -> u32 {
        self.0
    }
}

/// A map by a name.
#[derive(Debug)]
pub(super) struct KeyMap<K, V> {
    /// None, or a power of two.
    places: Vec<Option<(K, V)>>,
    /// How far the upper bits of a hash, which are the mixed ones, are from a place.
    shift: u32,
    len: usize,
    /// What was looked up last by [`KeyMap::again`].
    last: Option<(K, V)>,
}

impl<K, V> Default for KeyMap<K, V> {
    fn default() -> Self {
        Self {
            places: Vec::new(),
            shift: 0,
            len: 0,
            last: None,
        }
    }
}

impl<K: Name, V: Copy> KeyMap<K, V> {
    #[inline]
    pub(super) fn get(&self, key: &K) -> Option<&V> {
        // Most are where they belong.
        match self.places.get(self.home(*key)) {
            Some(Some((other, value))) if other == key => Some(value),
            _ => self.search(key),
        }
    }

    /// As [`KeyMap::get`], for one that is mostly the same as the last.
    #[inline]
    pub(super) fn again(&mut self, key: K) -> Option<V> {
        match self.last {
            Some((last, value)) if last == key => Some(value),
            _ => self.another(key),
        }
    }

    #[cold]
    fn another(&mut self, key: K) -> Option<V> {
        let value = *self.get(&key)?;
        self.last = Some((key, value));
        Some(value)
    }

    #[cold]
    fn search(&self, key: &K) -> Option<&V> {
        let mut place = self.home(*key);
        loop {
            match self.places.get(place)? {
                Some((other, value)) if other == key => return Some(value),
                Some(_) => place = self.behind(place),
                None => return None,
            }
        }
    }

    /// Puts a value in, in place of one of the same name.
    pub(super) fn insert(&mut self, key: K, value: V) {
        self.last = None;
        if 2 * (self.len + 1) > self.places.len() {
            self.grow();
        }
        let mut place = self.home(key);
        while self.places[place].is_some_and(|(other, _)| other != key) {
            place = self.behind(place);
        }
        self.len += usize::from(self.places[place].is_none());
        self.places[place] = Some((key, value));
    }

    /// Takes a value out. Those that were put behind it come nearer, so that a search ends at an empty place.
    pub(super) fn remove(&mut self, key: &K) -> Option<V> {
        self.last = None;
        let mut place = self.home(*key);
        while (*self.places.get(place)?)?.0 != *key {
            place = self.behind(place);
        }
        let (_, value) = self.places[place].take()?;
        self.len -= 1;
        let mut next = self.behind(place);
        while let Some((other, _)) = self.places[next] {
            // How far it is from where it belongs, and from the place that is empty now.
            let mask = self.places.len() - 1;
            let astray = next.wrapping_sub(self.home(other)) & mask;
            if astray >= next.wrapping_sub(place) & mask {
                self.places.swap(place, next);
                place = next;
            }
            next = self.behind(next);
        }
        Some(value)
    }

    fn home(&self, key: K) -> usize {
        // The golden ratio: numbers in a row fall far apart.
        key.number().wrapping_mul(0x9e37_79b9).wrapping_shr(self.shift) as usize
    }

    fn behind(&self, place: usize) -> usize {
        (place + 1) & (self.places.len() - 1)
    }

    #[cold]
    fn grow(&mut self) {
        let len = (2 * self.places.len()).max(8);
        let old = std::mem::replace(&mut self.places, vec![None; len]);
        self.shift = 32 - len.trailing_zeros();
        self.len = 0;
        old.into_iter()
            .flatten()
            .for_each(|(key, value)| self.insert(key, value));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::HashMap;

    proptest! {
        #[test]
        fn as_any_other_map(steps in proptest::collection::vec((any::<bool>(), 0u32..40, 0u32..4), 1..300)) {
            let (mut ours, mut theirs) = (KeyMap::default(), HashMap::new());
            for (at, (put, low, high)) in steps.into_iter().enumerate() {
                // Queue pairs are numbered in the upper half too.
                let key = LunKey(high << 16 | low);
                if put {
                    ours.insert(key, at);
                    theirs.insert(key, at);
                } else {
                    prop_assert_eq!(ours.remove(&key), theirs.remove(&key));
                }
                for number in (0..40u32).flat_map(|low| (0..4u32).map(move |high| LunKey(high << 16 | low))) {
                    prop_assert_eq!(ours.get(&number), theirs.get(&number));
                    prop_assert_eq!(ours.again(number), theirs.get(&number).copied());
                    prop_assert_eq!(ours.again(number), theirs.get(&number).copied());
                }
            }
        }
    }
}
