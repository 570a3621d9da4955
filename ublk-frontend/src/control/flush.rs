//! Bringing what is dirty to the disk before it is stopped.

use std::fs::{self, File};
use std::io;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::time::Duration;

use thiserror::Error;

use super::block_name;
use super::bounded::bounded;
use crate::ring::flush_buffers;

/// Why a disk was not flushed.
#[derive(Debug, Error)]
pub enum FlushError {
    /// I/O failed.
    #[error("/dev/{node}: flushing failed: {source}; what was not written yet is lost when the device is stopped")]
    Failed {
        /// The disk or partition.
        node: String,
        /// The cause.
        source: io::Error,
    },
    /// It takes too long, or its thread failed.
    #[error("/dev/ublkb{id}: flushing: {why}; what was not written yet is lost when the device is stopped")]
    Unfinished {
        /// The device.
        id: u32,
        /// What is known.
        why: String,
    },
}

/// Writes out file systems mounted on the disk and its partitions, then their page caches, then the disk's write cache.
pub fn flush(id: u32, limit: Duration) -> Result<(), FlushError> {
    bounded(limit, move || flush_all(id), |_| ()).map_err(|unfinished| FlushError::Unfinished {
        id,
        why: unfinished.to_string(),
    })?
}

fn flush_all(id: u32) -> Result<(), FlushError> {
    let disk = block_name(id);
    // A partition's file system and page cache are its own: the disk's flush does not reach them.
    for node in partitions(Path::new("/sys/class/block"), &disk)
        .into_iter()
        .chain([disk])
    {
        flush_node(&node).map_err(|source| FlushError::Failed { node, source })?;
    }
    Ok(())
}

fn flush_node(node: &str) -> io::Result<()> {
    let device = File::open(Path::new("/dev").join(node))?;
    device.sync_all()?;
    let device = OwnedFd::from(device);
    flush_buffers(&device)?;
    // BLKFLSBUF writes the page cache out and sends no FLUSH: what it wrote may still be in the disk's cache.
    Ok(rustix::fs::fsync(&device)?)
}

/// Names of the disk's partitions.
pub(super) fn partitions(block: &Path, disk: &str) -> Vec<String> {
    let Ok(entries) = fs::read_dir(block.join(disk)) else {
        return Vec::new();
    };
    let mut names: Vec<String> = entries
        .flatten()
        .filter(|entry| entry.path().join("partition").exists())
        .filter_map(|entry| entry.file_name().into_string().ok())
        .collect();
    names.sort();
    names
}
