use super::fio::Percentiles;
use super::*;
use crate::cli::samples;
use crate::rpc::scratch::Scratch;

fn report() -> Report {
    let points = Point::all(false).enumerate().map(|(index, point)| Line {
        point: point.name,
        measured: Measured {
            iops: 100.0 * (index + 1) as f64,
            bytes_per_second: 4e7 * (index + 1) as f64,
            latency_us: Percentiles {
                half: 10.0,
                most: 20.0,
                nearly_all: 45.5,
            },
        },
        of_link: None,
    });
    Report {
        device: "/dev/ublkb0".to_owned(),
        disk: "LIO-ORG disk0".to_owned(),
        link: Link::of(Path::new("/nowhere"), "rxe0/1"),
        points: points.collect(),
    }
}

#[test]
fn a_line_for_each_point() {
    let text = text(&report());
    assert_eq!(text.lines().count(), 2 + report().points.len());
    assert!(
        text.starts_with("/dev/ublkb0 (LIO-ORG disk0) over rxe0/1, which has no rate"),
        "{text}"
    );
    let first: Vec<&str> = text.lines().nth(2).unwrap().split("  ").map(str::trim).collect();
    let cells: Vec<&str> = first.into_iter().filter(|cell| !cell.is_empty()).collect();
    let expected = [
        "4 KiB random read, depth 1",
        "100",
        "40.0",
        "-",
        "10 us",
        "20 us",
        "46 us",
    ];
    assert_eq!(cells, expected);
}

#[test]
fn files_of_a_report() {
    let folder = Scratch::new();
    let path = folder.path("");
    write(&path, &report()).unwrap();
    let json: serde_json::Value =
        serde_json::from_str(&fs::read_to_string(path.join("results.json")).unwrap()).unwrap();
    assert_eq!(json["points"][0]["latency_us"]["99.9"], 45.5);
    for (name, bars) in [("throughput.svg", 6), ("latency.svg", 18)] {
        let svg = fs::read_to_string(path.join(name)).unwrap();
        assert!(svg.contains("4 KiB random read, depth 32"), "{name}");
        let drawn = svg.matches("<rect").count();
        assert!(drawn >= bars, "{name} has {drawn} rectangles");
    }
    let failure = write(Path::new("/nowhere"), &report()).unwrap_err();
    assert!(failure.mentions("/nowhere/results.json cannot be written"));
}

#[test]
fn what_cannot_be_measured() {
    let bench = |destroy| Bench {
        device: DeviceNumber(4_000_000),
        destroy,
        seconds: 1,
        out: None,
    };
    let mut detail = samples::detail();
    detail.device.number = 4_000_000;
    assert!(bench(true).check(&detail).is_ok());
    detail.device.read_only = true;
    assert!(bench(true).check(&detail).unwrap_err().mentions("read-only"));
    assert!(bench(false).check(&detail).is_ok());
    detail.device.state = "lost".to_owned();
    assert!(bench(false).check(&detail).unwrap_err().mentions("is lost"));
}
