//! What the link below a session can carry.

use std::fmt;
use std::fs;
use std::path::Path;

use serde::Serialize;

/// A port of an HCA and its data rate.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(super) struct Link {
    /// Device and port, `mlx5_0/1`.
    port: String,
    /// Bytes of data a second, where there is hardware that says.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) bytes_per_second: Option<f64>,
    /// As the kernel tells it.
    #[serde(skip_serializing_if = "Option::is_none")]
    rate: Option<String>,
}

impl Link {
    /// Of a local port `DEVICE/PORT`.
    pub(super) fn of(sys: &Path, port: &str) -> Self {
        let mut link = Self {
            port: port.to_owned(),
            bytes_per_second: None,
            rate: None,
        };
        let Some((device, number)) = port.split_once('/') else {
            return link;
        };
        let device = sys.join("class/infiniband").join(device);
        // A device without hardware behind it, such as soft-RoCE's, makes its rate up.
        if !device.join("device").exists() {
            return link;
        }
        let port = device.join("ports").join(number);
        let read = |name: &str| fs::read_to_string(port.join(name)).ok();
        let Some(rate) = read("rate") else { return link };
        let ethernet = read("link_layer").is_some_and(|layer| layer.trim() == "Ethernet");
        link.bytes_per_second = bytes_per_second(rate.trim(), ethernet);
        link.rate = Some(rate.trim().to_owned());
        link
    }

    /// How much of it so many bytes a second are.
    pub(super) fn share(&self, bytes_per_second: f64) -> Option<f64> {
        self.bytes_per_second.map(|most| bytes_per_second / most)
    }
}

/// The data rate of a rate as sysfs writes it: `40 Gb/sec (4X QDR)`. Signals of InfiniBand up to QDR carry 8 bits of
/// data in 10, later ones 64 in 66 (IBA volume 2, 5.6); Ethernet's rate is that of the data.
fn bytes_per_second(rate: &str, ethernet: bool) -> Option<f64> {
    let (gigabits, unit) = rate.split_once(' ')?;
    if !unit.starts_with("Gb/sec") {
        return None;
    }
    let gigabits: f64 = gigabits.parse().ok().filter(|rate| *rate > 0.0)?;
    let coded = |name: &str| unit.contains(name);
    let data = match () {
        () if ethernet => 1.0,
        () if coded("SDR") || coded("DDR") || coded("QDR") => 0.8,
        () => 64.0 / 66.0,
    };
    Some(gigabits * data * 1e9 / 8.0)
}

impl fmt::Display for Link {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.port)?;
        match (&self.rate, self.bytes_per_second) {
            (Some(rate), Some(most)) => write!(f, ", {rate}: {:.0} MB/s of data at most", most / 1e6),
            _ => f.write_str(", which has no rate of its own to compare with"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rpc::scratch::Scratch;

    #[test]
    fn rates() {
        let infiniband = |rate| bytes_per_second(rate, false);
        assert_eq!(infiniband("10 Gb/sec (4X SDR)"), Some(1e9));
        assert_eq!(infiniband("40 Gb/sec (4X QDR)"), Some(4e9));
        let edr = infiniband("100 Gb/sec (4X EDR)").unwrap();
        assert!((12.1e9..12.2e9).contains(&edr), "{edr}");
        assert_eq!(bytes_per_second("100 Gb/sec (4X EDR)", true), Some(12.5e9));
        assert_eq!(bytes_per_second("10 Gb/sec (4X SDR)", true), Some(1.25e9));
        for nonsense in ["", "fast", "x Gb/sec", "0 Gb/sec", "-1 Gb/sec", "10 Mb/sec"] {
            assert_eq!(infiniband(nonsense), None, "{nonsense}");
        }
    }

    #[test]
    fn of_hardware_and_of_software() {
        let sys = Scratch::new();
        for device in ["mlx4_0", "rxe0"] {
            let port = sys.path(&format!("class/infiniband/{device}/ports/1"));
            fs::create_dir_all(&port).unwrap();
            fs::write(port.join("rate"), "10 Gb/sec (4X SDR)\n").unwrap();
            fs::write(port.join("link_layer"), "InfiniBand\n").unwrap();
        }
        fs::create_dir(sys.path("class/infiniband/mlx4_0/device")).unwrap();
        let root = sys.path("");
        let link = Link::of(&root, "mlx4_0/1");
        assert_eq!(link.share(580e6), Some(0.58));
        assert!(link.to_string().contains("1000 MB/s"), "{link}");
        for without in ["rxe0/1", "mlx4_0/2", "nothing"] {
            assert_eq!(Link::of(&root, without).share(1.0), None, "{without}");
        }
    }
}
