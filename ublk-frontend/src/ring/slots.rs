//! A slab whose handles do not come back to life: slot number and generation in one `u32`.

const SLOT_BITS: u32 = 16;
const SLOT_MASK: u32 = (1 << SLOT_BITS) - 1;

#[derive(Debug)]
struct Slot<T> {
    generation: u16,
    value: Option<T>,
}

/// Up to 65,536 values; a handle of a removed value finds nothing (until 65,536 reuses of its slot).
#[derive(Debug)]
pub(crate) struct Slots<T> {
    slots: Vec<Slot<T>>,
    free: Vec<u32>,
}

impl<T> Slots<T> {
    pub(crate) const fn new() -> Self {
        Self {
            slots: Vec::new(),
            free: Vec::new(),
        }
    }

    /// `None` when all slots are taken; the value is dropped then.
    pub(crate) fn insert(&mut self, value: T) -> Option<u32> {
        let slot = match self.free.pop() {
            Some(slot) => slot,
            None => {
                let slot = u32::try_from(self.slots.len()).ok().filter(|slot| *slot <= SLOT_MASK)?;
                self.slots.push(Slot {
                    generation: 0,
                    value: None,
                });
                slot
            }
        };
        let entry = self.slots.get_mut(slot as usize)?;
        entry.value = Some(value);
        Some(slot | u32::from(entry.generation) << SLOT_BITS)
    }

    pub(crate) fn get(&self, handle: u32) -> Option<&T> {
        let slot = self.slots.get((handle & SLOT_MASK) as usize)?;
        if u32::from(slot.generation) != handle >> SLOT_BITS {
            return None;
        }
        slot.value.as_ref()
    }

    pub(crate) fn get_mut(&mut self, handle: u32) -> Option<&mut T> {
        let slot = self.slots.get_mut((handle & SLOT_MASK) as usize)?;
        if u32::from(slot.generation) != handle >> SLOT_BITS {
            return None;
        }
        slot.value.as_mut()
    }

    pub(crate) fn remove(&mut self, handle: u32) -> Option<T> {
        let number = handle & SLOT_MASK;
        let slot = self.slots.get_mut(number as usize)?;
        if u32::from(slot.generation) != handle >> SLOT_BITS {
            return None;
        }
        let value = slot.value.take()?;
        slot.generation = slot.generation.wrapping_add(1);
        self.free.push(number);
        Some(value)
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = (u32, &T)> {
        (0u32..).zip(&self.slots).filter_map(|(number, slot)| {
            slot.value
                .as_ref()
                .map(|value| (number | u32::from(slot.generation) << SLOT_BITS, value))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::Slots;

    #[test]
    fn a_handle_dies_with_its_value() {
        let mut slots = Slots::new();
        let first = slots.insert('a').unwrap();
        assert_eq!(slots.remove(first), Some('a'));
        let second = slots.insert('b').unwrap();
        assert_ne!(first, second);
        assert_eq!(slots.get(first), None);
        assert_eq!(slots.remove(first), None);
        assert_eq!(slots.get(second), Some(&'b'));
    }

    #[test]
    fn ends_at_its_number_of_slots() {
        let mut slots = Slots::new();
        for number in 0..65_536u32 {
            assert_eq!(slots.insert(number), Some(number));
        }
        assert_eq!(slots.insert(0), None);
        slots.remove(77);
        assert_eq!(slots.insert(1), Some(77 | 1 << 16));
    }
}
