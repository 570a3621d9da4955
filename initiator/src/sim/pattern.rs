//! What the client writes: every block tells whose it is and which write it came from.

/// The contents of a block after write number `stamp`; zeros for stamp 0, a disk never written.
pub fn fill_block(block: &mut [u8], lun: u64, lba: u64, stamp: u64) {
    if stamp == 0 {
        block.fill(0);
        return;
    }
    let mut word = lun ^ lba.rotate_left(20) ^ stamp.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    for (index, chunk) in block.chunks_mut(8).enumerate() {
        let value = match index {
            0 => lun,
            1 => lba,
            2 => stamp,
            _ => {
                word = word.wrapping_mul(0x5851_f42d_4c95_7f2d).wrapping_add(1);
                word
            }
        };
        chunk.copy_from_slice(&value.to_le_bytes()[..chunk.len()]);
    }
}

/// The number of the write a block's contents claim to come from.
#[must_use]
pub fn stamp_of(block: &[u8]) -> u64 {
    block
        .get(16..24)
        .and_then(|bytes| bytes.try_into().ok())
        .map_or(0, u64::from_le_bytes)
}
