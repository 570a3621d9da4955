//! Who has which queue pair id. Ids are never given twice.

use srp_initiator::fabric::QueuePairId;

/// A place for one occupant at a time; its id is generation and index.
struct Place<T> {
    generation: u16,
    occupant: Option<T>,
}

/// Occupants by [`QueuePairId`], found without hashing.
pub(super) struct Table<T> {
    places: Vec<Place<T>>,
}

/// Which place an id belongs to.
pub(super) const fn index_of(id: QueuePairId) -> u16 {
    id.0 as u16
}

const fn generation_of(id: QueuePairId) -> u16 {
    (id.0 >> 16) as u16
}

impl<T> Table<T> {
    pub(super) const fn new() -> Self {
        Self { places: Vec::new() }
    }

    /// Makes room for one more; `None` when all ids have been used. The id is given by [`Self::insert`].
    pub(super) fn vacant(&mut self) -> Option<QueuePairId> {
        let usable = |place: &Place<T>| place.occupant.is_none() && place.generation < u16::MAX;
        let index = self.places.iter().position(usable).unwrap_or(self.places.len());
        let number = u16::try_from(index).ok()?;
        if index == self.places.len() {
            self.places.push(Place {
                generation: 0,
                occupant: None,
            });
        }
        let generation = self.places[index].generation + 1;
        Some(QueuePairId(u32::from(generation) << 16 | u32::from(number)))
    }

    /// Puts an occupant into the place that [`Self::vacant`] named.
    pub(super) fn insert(&mut self, id: QueuePairId, occupant: T) {
        let place = &mut self.places[usize::from(index_of(id))];
        debug_assert!(
            place.occupant.is_none() && place.generation + 1 == generation_of(id),
            "{id:?} is not vacant"
        );
        place.generation = generation_of(id);
        place.occupant = Some(occupant);
    }

    pub(super) fn remove(&mut self, id: QueuePairId) -> Option<T> {
        self.get(id)?;
        self.places[usize::from(index_of(id))].occupant.take()
    }

    pub(super) fn get(&self, id: QueuePairId) -> Option<&T> {
        let place = self.places.get(usize::from(index_of(id)))?;
        place
            .occupant
            .as_ref()
            .filter(|_| place.generation == generation_of(id))
    }

    pub(super) fn get_mut(&mut self, id: QueuePairId) -> Option<&mut T> {
        let place = self.places.get_mut(usize::from(index_of(id)))?;
        place
            .occupant
            .as_mut()
            .filter(|_| place.generation == generation_of(id))
    }

    /// Whoever is at an index now.
    pub(super) fn at(&mut self, index: u16) -> Option<&mut T> {
        self.places.get_mut(usize::from(index))?.occupant.as_mut()
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &T> {
        self.places.iter().filter_map(|place| place.occupant.as_ref())
    }

    /// Places made so far: more than any index.
    pub(super) fn len(&self) -> usize {
        self.places.len()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    fn add(table: &mut Table<u32>, value: u32) -> QueuePairId {
        let id = table.vacant().expect("ids are left");
        table.insert(id, value);
        id
    }

    #[test]
    fn ids_are_not_given_twice_and_places_are_reused() {
        let mut table = Table::new();
        let mut seen = HashSet::new();
        let keep = add(&mut table, 0);
        for value in 1..70_000 {
            let id = add(&mut table, value);
            assert!(seen.insert(id), "{id:?} was given before");
            assert_eq!(table.remove(id), Some(value));
            assert_eq!(table.get(id), None);
            assert_eq!(table.remove(id), None);
        }
        assert_eq!(table.get(keep), Some(&0));
        assert_eq!(table.len(), 3, "one place is worn out, another has taken over");
    }

    #[test]
    fn an_old_id_does_not_reach_the_next_occupant() {
        let mut table = Table::new();
        let old = add(&mut table, 1);
        table.remove(old);
        let new = add(&mut table, 2);
        assert_eq!(index_of(old), index_of(new));
        assert_eq!(table.get(old), None);
        assert_eq!(table.get_mut(old), None);
        assert_eq!(table.get(new), Some(&2));
        assert_eq!(table.at(index_of(old)), Some(&mut 2));
        assert_eq!(table.get(QueuePairId(0xffff)), None);
    }
}
