//! What is measured, by fio.

use std::collections::BTreeMap;
use std::io;
use std::process::{Command, Stdio};

use serde::{Deserialize, Serialize};

use crate::cli::failure::Failure;
use crate::rpc::protocol::ErrorKind;

/// A fio job.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Point {
    pub(super) name: &'static str,
    rw: &'static str,
    block: u32,
    depth: u32,
    jobs: u32,
}

/// What came of it.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(super) struct Measured {
    pub(super) iops: f64,
    pub(super) bytes_per_second: f64,
    /// From submission to completion, in microseconds.
    pub(super) latency_us: Percentiles,
}

#[derive(Clone, Debug, PartialEq, Serialize)]
pub(super) struct Percentiles {
    #[serde(rename = "50")]
    pub(super) half: f64,
    #[serde(rename = "99")]
    pub(super) most: f64,
    #[serde(rename = "99.9")]
    pub(super) nearly_all: f64,
}

const KIB: u32 = 1024;

const fn point(name: &'static str, rw: &'static str, block: u32, depth: u32, jobs: u32) -> Point {
    Point {
        name,
        rw,
        block,
        depth,
        jobs,
    }
}

const READS: [Point; 6] = [
    point("4 KiB random read, depth 1", "randread", 4 * KIB, 1, 1),
    point("4 KiB random read, depth 32", "randread", 4 * KIB, 32, 1),
    point("4 KiB random read, 4 jobs of 32", "randread", 4 * KIB, 32, 4),
    point("64 KiB read, depth 8", "read", 64 * KIB, 8, 1),
    point("256 KiB read, depth 8", "read", 256 * KIB, 8, 1),
    point("1 MiB read, depth 8", "read", 1024 * KIB, 8, 1),
];

const WRITES: [Point; 7] = [
    point("4 KiB random write, depth 1", "randwrite", 4 * KIB, 1, 1),
    point("4 KiB random write, depth 32", "randwrite", 4 * KIB, 32, 1),
    point("4 KiB random write, 4 jobs of 32", "randwrite", 4 * KIB, 32, 4),
    point("4 KiB random 70/30, depth 32", "randrw", 4 * KIB, 32, 1),
    point("64 KiB write, depth 8", "write", 64 * KIB, 8, 1),
    point("256 KiB write, depth 8", "write", 256 * KIB, 8, 1),
    point("1 MiB write, depth 8", "write", 1024 * KIB, 8, 1),
];

impl Point {
    /// The standard set; with what writes, or without.
    pub(super) fn all(writes: bool) -> impl Iterator<Item = Self> {
        READS.into_iter().chain(WRITES.into_iter().filter(move |_| writes))
    }

    fn arguments(&self, path: &str, seconds: u32) -> Vec<String> {
        let mut arguments: Vec<String> = [
            "--name=point",
            "--ioengine=io_uring",
            "--direct=1",
            "--thread=1",
            "--norandommap=1",
            "--randrepeat=0",
            "--time_based",
            "--ramp_time=1",
            "--group_reporting",
            "--percentile_list=50:99:99.9",
            "--output-format=json",
        ]
        .map(str::to_owned)
        .into();
        arguments.extend([
            format!("--filename={path}"),
            format!("--rw={}", self.rw),
            format!("--bs={}", self.block),
            format!("--iodepth={}", self.depth),
            format!("--numjobs={}", self.jobs),
            format!("--runtime={seconds}"),
        ]);
        match self.rw {
            "randrw" => arguments.push("--rwmixread=70".to_owned()),
            // fio itself then refuses to write, whatever else it is told.
            "read" | "randread" => arguments.push("--readonly".to_owned()),
            _ => {}
        }
        arguments
    }

    /// Runs it on a device.
    pub(super) fn measure(&self, path: &str, seconds: u32) -> Result<Measured, Failure> {
        let mut command = Command::new("fio");
        command.args(self.arguments(path, seconds)).stdin(Stdio::null());
        let output = command.output().map_err(|error| match error.kind() {
            io::ErrorKind::NotFound => {
                Failure::new(ErrorKind::Host, "fio is missing").remedy("install it: apt install fio")
            }
            _ => Failure::of(ErrorKind::Host, &error).about("fio cannot be run"),
        })?;
        let told = String::from_utf8_lossy(&output.stdout);
        let complaint = String::from_utf8_lossy(&output.stderr);
        if !output.status.success() {
            let last = complaint
                .lines()
                .chain(told.lines())
                .rfind(|line| !line.trim().is_empty());
            let message = format!("{}: fio failed: {}", self.name, last.unwrap_or("it does not say why"));
            return Err(Failure::new(ErrorKind::Host, message));
        }
        parse(&told).map_err(|what| Failure::new(ErrorKind::Host, format!("{}: {what}", self.name)))
    }
}

#[derive(Deserialize)]
struct Told {
    jobs: Vec<Job>,
}

#[derive(Deserialize)]
struct Job {
    error: i64,
    read: Side,
    write: Side,
}

#[derive(Deserialize)]
struct Side {
    iops: f64,
    bw_bytes: f64,
    total_ios: u64,
    clat_ns: Latency,
}

#[derive(Deserialize)]
struct Latency {
    #[serde(default)]
    percentile: BTreeMap<String, f64>,
}

/// Reads fio's JSON, of one job or one group; reads and writes of a mixed one count together.
fn parse(told: &str) -> Result<Measured, String> {
    // Warnings may come before it.
    let json = told.find('{').map_or("", |start| &told[start..]);
    let told: Told = serde_json::from_str(json).map_err(|error| format!("fio's output cannot be read: {error}"))?;
    let [job] = &told.jobs[..] else {
        return Err(format!("fio tells of {} jobs, not of one", told.jobs.len()));
    };
    if job.error != 0 {
        let error = i32::try_from(job.error).map_or_else(|_| io::Error::other("?"), io::Error::from_raw_os_error);
        return Err(format!("fio met an error of the device: {error}"));
    }
    let sides = [&job.read, &job.write];
    let used = || sides.into_iter().filter(|side| side.total_ios > 0);
    if used().next().is_none() {
        return Err("not one request ended in time: measure for longer, with --seconds".to_owned());
    }
    let percentile = |key: &str| {
        let found = used().filter_map(|side| side.clat_ns.percentile.get(key));
        found.copied().fold(0.0, f64::max) / 1000.0
    };
    Ok(Measured {
        iops: used().map(|side| side.iops).sum(),
        bytes_per_second: used().map(|side| side.bw_bytes).sum(),
        latency_us: Percentiles {
            half: percentile("50.000000"),
            most: percentile("99.000000"),
            nearly_all: percentile("99.900000"),
        },
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(error: i64, reads: u64, writes: u64) -> String {
        let side = |ios: u64, scale: f64| {
            format!(
                r#"{{"iops": {}, "bw_bytes": {}, "total_ios": {ios},
                    "clat_ns": {{"percentile": {{"50.000000": {}, "99.000000": 9000, "99.900000": 12500}}}}}}"#,
                7.0 * scale,
                28672.0 * scale,
                1000.0 * scale
            )
        };
        format!(
            "fio: a warning\n{{\"jobs\": [{{\"error\": {error}, \"read\": {}, \"write\": {}}}]}}",
            side(reads, 1.0),
            side(writes, 2.0)
        )
    }

    #[test]
    fn figures_of_one_side_and_of_both() {
        let measured = parse(&told(0, 9, 0)).unwrap();
        assert_eq!((measured.iops, measured.bytes_per_second), (7.0, 28672.0));
        assert_eq!(measured.latency_us.half, 1.0);
        assert_eq!(measured.latency_us.nearly_all, 12.5);
        let both = parse(&told(0, 9, 9)).unwrap();
        assert_eq!((both.iops, both.latency_us.half), (21.0, 2.0));
    }

    #[test]
    fn what_is_no_result() {
        assert!(parse(&told(5, 9, 9)).unwrap_err().contains("Input/output error"));
        assert!(parse(&told(0, 0, 0)).unwrap_err().contains("--seconds"));
        for nonsense in ["", "fio: no", "{}", r#"{"jobs": []}"#] {
            assert!(parse(nonsense).is_err(), "{nonsense}");
        }
    }

    #[test]
    fn reads_cannot_write() {
        for point in Point::all(false) {
            let arguments = point.arguments("/dev/ublkb0", 1);
            assert!(arguments.contains(&"--readonly".to_owned()), "{}", point.name);
        }
        let writing = |point: Point| !point.arguments("x", 1).contains(&"--readonly".to_owned());
        assert_eq!(Point::all(true).filter(|point| writing(*point)).count(), WRITES.len());
    }
}
