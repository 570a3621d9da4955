//! Reads or writes block devices in turns, one request of 4 KiB at a time, and prints as JSON what each of them did. For
//! `lab/bench`.
//!
//! A machine changes its speed within seconds. Where a measurement of each device takes as long, their ratio is off by as
//! much; turns of a tenth of a second see the same machine. fio cannot change devices so fast.

#![forbid(unsafe_code)]

use std::error::Error;
use std::fs::File;
use std::io::{Seek, SeekFrom};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use clap::Parser;
use rustix::fs::OFlags;
use serde_json::json;

type Fallible<T> = Result<T, Box<dyn Error>>;

const BLOCK: usize = 4096;
/// A prime, so that all blocks come up before one comes again, and not near the one before.
const STRIDE: u64 = 1_000_003;
const PERCENTILES: [f64; 3] = [50.0, 99.0, 99.9];

#[derive(Debug, Parser)]
struct Options {
    /// Write instead of reading: what is on the devices is lost.
    #[arg(long)]
    write: bool,
    /// Time of each device, in seconds.
    #[arg(long, default_value_t = 1.0)]
    seconds: f64,
    /// Length of a turn.
    #[arg(long, default_value_t = 100)]
    turn_ms: u64,
    /// What a turn begins with and does not count: threads of the device before it fall asleep, this one's awake.
    #[arg(long, default_value_t = 20)]
    ramp_ms: u64,
    #[arg(required = true)]
    devices: Vec<PathBuf>,
}

struct Device {
    path: PathBuf,
    file: File,
    blocks: u64,
    next: u64,
    time: Duration,
    /// In nanoseconds.
    latencies: Vec<u64>,
}

impl Device {
    fn open(path: PathBuf, write: bool) -> Fallible<Self> {
        let mut file = File::options()
            .read(true)
            .write(write)
            .custom_flags(OFlags::DIRECT.bits() as i32)
            .open(&path)?;
        let blocks = file.seek(SeekFrom::End(0))? / BLOCK as u64;
        if blocks == 0 {
            return Err(format!("{} has less than {BLOCK} bytes", path.display()).into());
        }
        let (next, time, latencies) = (0, Duration::ZERO, Vec::new());
        Ok(Self {
            path,
            file,
            blocks,
            next,
            time,
            latencies,
        })
    }

    fn request(&mut self, write: bool, buffer: &mut [u8]) -> Fallible<()> {
        let offset = self.next * BLOCK as u64;
        self.next = (self.next + STRIDE) % self.blocks;
        if write {
            self.file.write_all_at(buffer, offset)?;
        } else {
            self.file.read_exact_at(buffer, offset)?;
        }
        Ok(())
    }

    fn turn(&mut self, options: &Options, buffer: &mut [u8]) -> Fallible<()> {
        let turn = Duration::from_millis(options.turn_ms);
        let ramp = Duration::from_millis(options.ramp_ms);
        let begun = Instant::now();
        while begun.elapsed() < ramp {
            self.request(options.write, buffer)?;
        }
        let begun = Instant::now();
        let mut last = Duration::ZERO;
        while last < turn {
            self.request(options.write, buffer)?;
            let now = begun.elapsed();
            self.latencies.push((now - last).as_nanos() as u64);
            last = now;
        }
        self.time += last;
        Ok(())
    }

    fn report(mut self) -> serde_json::Value {
        self.latencies.sort_unstable();
        let last = self.latencies.len().saturating_sub(1);
        let micros = |place: usize| self.latencies.get(place).map_or(0.0, |nanos| *nanos as f64 / 1000.0);
        let percentiles: serde_json::Map<_, _> = PERCENTILES
            .iter()
            .map(|percent| {
                (
                    percent.to_string(),
                    json!(micros((last as f64 * percent / 100.0) as usize)),
                )
            })
            .collect();
        let ios = self.latencies.len();
        json!({
            "device": self.path,
            "ios": ios,
            "iops": ios as f64 / self.time.as_secs_f64(),
            "bytes_per_second": (ios * BLOCK) as f64 / self.time.as_secs_f64(),
            "latency_us": percentiles,
            "slowest_us": micros(last),
        })
    }
}

fn measure(options: &Options) -> Fallible<()> {
    let mut memory = vec![0x5a; 2 * BLOCK];
    let skipped = memory.as_ptr().align_offset(BLOCK);
    let buffer = memory.get_mut(skipped..skipped + BLOCK).ok_or("no aligned buffer")?;
    let mut devices = options
        .devices
        .iter()
        .map(|path| {
            Device::open(path.clone(), options.write).map_err(|error| format!("{}: {error}", path.display()).into())
        })
        .collect::<Fallible<Vec<_>>>()?;
    let each = Duration::try_from_secs_f64(options.seconds)?;
    while devices[0].time < each {
        for device in &mut devices {
            device
                .turn(options, buffer)
                .map_err(|error| format!("{}: {error}", device.path.display()))?;
        }
        // None always comes first.
        devices.rotate_left(1);
    }
    devices.sort_by_key(|device| options.devices.iter().position(|path| *path == device.path));
    for device in devices {
        println!("{}", device.report());
    }
    Ok(())
}

fn main() -> ExitCode {
    match measure(&Options::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("in_turns: {error}");
            ExitCode::FAILURE
        }
    }
}
