//! Bring-up against a scripted target: what it is asked, in order, and what it answers.

use std::future::Future;
use std::pin::pin;
use std::sync::Mutex;
use std::task::{Context, Poll, Waker};

use super::*;
use crate::scsi::sense::SenseKey;
use crate::scsi::{mode, vpd};
use proptest::prelude::*;

/// Answers in order, each to the command it expects.
struct Script {
    steps: Mutex<std::vec::IntoIter<(Cdb, Result<Reply, ExecuteError>)>>,
    pauses: Mutex<u32>,
}

impl Script {
    fn new(steps: Vec<(Cdb, Result<Reply, ExecuteError>)>) -> Self {
        Self {
            steps: Mutex::new(steps.into_iter()),
            pauses: Mutex::new(0),
        }
    }

    fn left(&self) -> usize {
        self.steps.lock().unwrap().len()
    }
}

impl Execute for Script {
    async fn execute(&self, _: Lun, cdb: Cdb, _: u32) -> Result<Reply, ExecuteError> {
        let step = self.steps.lock().unwrap().next();
        let (expected, reply) = step.unwrap_or_else(|| panic!("nothing scripted for {cdb:?}"));
        assert_eq!(cdb.as_slice(), expected.as_slice());
        reply
    }

    async fn pause(&self, _: Duration) {
        *self.pauses.lock().unwrap() += 1;
    }
}

/// Nothing scripted ever waits.
fn now<T>(future: impl Future<Output = T>) -> T {
    match pin!(future).poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(value) => value,
        Poll::Pending => panic!("waits"),
    }
}

type Step = (Cdb, Result<Reply, ExecuteError>);

fn good(cdb: Cdb, data: &[u8]) -> Step {
    (
        cdb,
        Ok(Reply {
            data: data.to_vec(),
            ..Reply::default()
        }),
    )
}

fn check(cdb: Cdb, key: SenseKey, asc: u8, ascq: u8) -> Step {
    (
        cdb,
        Ok(Reply {
            status: 2,
            sense: Some(Sense::new(key, asc, ascq)),
            data: Vec::new(),
        }),
    )
}

fn illegal(cdb: Cdb) -> Step {
    check(cdb, SenseKey::IllegalRequest, 0x20, 0)
}

fn page(code: u8, body: &[u8]) -> Vec<u8> {
    let len = u16::try_from(body.len()).unwrap().to_be_bytes();
    [&[0, code, len[0], len[1]], body].concat()
}

fn inquiry_data(first: u8) -> Vec<u8> {
    [&[first, 0, 6, 2, 31, 0, 0, 0][..], b"LIO-ORG disk            4.0 "].concat()
}

const READY: fn() -> Cdb = Cdb::test_unit_ready;

fn caching(wce: u8) -> [u8; 24] {
    let mut data = [0; 24];
    data[0] = 23;
    data[2] = 0x10;
    data[4..7].copy_from_slice(&[0x08, 18, wce]);
    data
}

#[test]
fn a_thin_disk() {
    let mut capacity = [0; 32];
    capacity[6..8].copy_from_slice(&[0xff, 0xff]);
    capacity[10] = 2;
    capacity[13] = 3;
    capacity[14] = 0xc0;
    let mut limits = [0; 60];
    limits[4..8].copy_from_slice(&[0, 0, 0x40, 0]);
    limits[16..20].copy_from_slice(&[0, 0, 1, 0]);
    limits[20..24].copy_from_slice(&[0, 0, 0, 1]);
    let naa = [&[1, 3, 0, 16][..], &[0x60; 16]].concat();
    let script = Script::new(vec![
        good(Cdb::inquiry(36), &inquiry_data(0)),
        good(Cdb::inquiry_vpd(0, 252), &page(0, &[0, 0x80, 0x83, 0xb0, 0xb1, 0xb2])),
        good(Cdb::inquiry_vpd(0x80, 252), &page(0x80, b"0815")),
        good(Cdb::inquiry_vpd(0x83, 252), &page(0x83, &naa)),
        good(Cdb::inquiry_vpd(0xb0, 252), &page(0xb0, &limits)),
        good(Cdb::inquiry_vpd(0xb1, 252), &page(0xb1, &[0, 1])),
        good(Cdb::inquiry_vpd(0xb2, 252), &page(0xb2, &[0, 0xc4, 2, 0])),
        check(READY(), SenseKey::UnitAttention, 0x29, 0),
        check(READY(), SenseKey::NotReady, 4, 1),
        good(READY(), &[]),
        good(Cdb::read_capacity_16(32), &capacity),
        good(Cdb::mode_sense_6(8, 192, false), &caching(4)),
    ]);
    let unit = now(probe(&script, Lun::from_index(3))).unwrap();
    assert_eq!((script.left(), *script.pauses.lock().unwrap()), (0, 1));
    assert_eq!((unit.vendor.as_str(), unit.product.as_str()), ("LIO-ORG", "disk"));
    assert_eq!(unit.serial.as_deref(), Some("0815"));
    assert_eq!(unit.identifier.as_deref(), Some("naa.60606060606060606060606060606060"));
    let expected = DiskGeometry {
        block_size: 512,
        blocks: 0x1_0000,
        physical_block_size: 4096,
        max_transfer_blocks: Some(0x4000),
        optimal_transfer_blocks: None,
        optimal_granularity_blocks: None,
        read_only: false,
        write_cache: true,
        dpo_fua: true,
        rotational: Some(false),
        protection: None,
        deallocated_reads_zeros: true,
        unmap: Some(UnmapLimits {
            max_blocks: 256,
            max_descriptors: 1,
            granularity: 1,
            alignment: 0,
        }),
        write_same_unmaps: true,
        max_write_same_blocks: None,
    };
    assert_eq!(unit.disk, Ok(expected));
}

#[test]
fn an_old_disk_that_knows_little() {
    let ten = [&[0, 6, 0, 0x80, 0, 0, 0, 0][..]].concat();
    let script = Script::new(vec![
        good(Cdb::inquiry(36), &[0, 0, 2, 2, 0]),
        illegal(Cdb::inquiry_vpd(0, 252)),
        good(READY(), &[]),
        illegal(Cdb::read_capacity_16(32)),
        good(Cdb::read_capacity_10(), &[0, 0, 0, 9, 0, 0, 8, 0]),
        illegal(Cdb::mode_sense_6(mode::CACHING_PAGE, 192, false)),
        illegal(Cdb::mode_sense_10(mode::CACHING_PAGE, 192, false)),
        illegal(Cdb::mode_sense_6(mode::ALL_PAGES, 192, false)),
        good(Cdb::mode_sense_10(mode::ALL_PAGES, 192, false), &ten),
    ]);
    let unit = now(probe(&script, Lun::default())).unwrap();
    assert_eq!(script.left(), 0);
    assert_eq!((unit.vendor.as_str(), unit.serial, unit.identifier), ("", None, None));
    let disk = unit.disk.unwrap();
    assert_eq!(
        (disk.block_size, disk.blocks, disk.physical_block_size),
        (2048, 10, 2048)
    );
    assert_eq!((disk.read_only, disk.write_cache, disk.dpo_fua), (true, false, false));
    assert_eq!((disk.unmap, disk.rotational), (None, None));
}

#[test]
fn vpd_pages_that_lie() {
    // Long by its own account: fetched again; then short of what it says.
    let naa = [&[1, 3, 0, 8][..], &[0x50; 8]].concat();
    let mut long = page(0x83, &[naa, vec![0; 400]].concat());
    let mut absurd = page(0x80, b"serial");
    absurd[2..4].copy_from_slice(&[0xff, 0xff]);
    let whole = long.clone();
    long.truncate(252);
    let script = Script::new(vec![
        good(Cdb::inquiry(36), &inquiry_data(0x05)),
        good(Cdb::inquiry_vpd(0, 252), &page(0, &[0, 0x80, 0x83])),
        good(Cdb::inquiry_vpd(0x80, 252), &absurd),
        good(Cdb::inquiry_vpd(0x83, 252), &long),
        good(Cdb::inquiry_vpd(0x83, 416), &whole[..300]),
    ]);
    let unit = now(probe(&script, Lun::default())).unwrap();
    assert_eq!(script.left(), 0);
    assert_eq!(unit.serial.as_deref(), Some("serial"));
    assert_eq!(unit.identifier.as_deref(), Some("naa.5050505050505050"));
    assert_eq!(unit.disk, Err(NotADisk::Kind(PeripheralType(5))));
    assert_eq!(
        unit.disk.unwrap_err().to_string(),
        "not a disk but of type: CD/DVD drive"
    );

    // Standard data for every page.
    let script = Script::new(vec![
        good(Cdb::inquiry(36), &inquiry_data(0x0d)),
        good(Cdb::inquiry_vpd(0, 252), &[0x0d, 0x80, 6, 2]),
    ]);
    let unit = now(probe(&script, Lun::default())).unwrap();
    assert_eq!((unit.serial, unit.identifier), (None, None));
}

#[test]
fn what_is_not_there() {
    for (first, expected) in [(0x7f, NotADisk::Absent), (0x20, NotADisk::NotConnected(1))] {
        let script = Script::new(vec![good(Cdb::inquiry(36), &inquiry_data(first))]);
        assert_eq!(now(probe(&script, Lun::default())).unwrap().disk, Err(expected));
    }
    let script = Script::new(vec![good(Cdb::inquiry(36), &[0, 0])]);
    let error = now(probe(&script, Lun::default())).unwrap_err();
    assert_eq!(error, BringUpError::Inquiry(InquiryTruncated(2)));
}

#[test]
fn a_block_size_linux_cannot_use() {
    let script = Script::new(vec![
        good(Cdb::inquiry(36), &inquiry_data(0)),
        illegal(Cdb::inquiry_vpd(vpd::SUPPORTED_PAGES, 252)),
        good(READY(), &[]),
        good(Cdb::read_capacity_16(32), &[]),
        good(Cdb::read_capacity_10(), &[0, 0, 0, 9, 0, 0, 2, 8]),
    ]);
    let unit = now(probe(&script, Lun::default())).unwrap();
    assert_eq!(unit.disk, Err(NotADisk::BlockSize(UnusableBlockSize(520))));
}

#[test]
fn retries_end() {
    let head = || {
        vec![
            good(Cdb::inquiry(36), &inquiry_data(0)),
            illegal(Cdb::inquiry_vpd(vpd::SUPPORTED_PAGES, 252)),
        ]
    };
    let attention = check(READY(), SenseKey::UnitAttention, 0x29, 0);
    let becoming = check(READY(), SenseKey::NotReady, 4, 1);
    for (step, attempts, pauses) in [(attention, 11, 0), (becoming, 21, 20)] {
        let script = Script::new([head(), vec![step; 40]].concat());
        let error = now(probe(&script, Lun::default())).unwrap_err();
        assert!(
            matches!(error, BringUpError::Exhausted { attempts: n, .. } if n == attempts),
            "{error}"
        );
        assert_eq!(*script.pauses.lock().unwrap(), pauses);
    }
    let script = Script::new([head(), vec![check(READY(), SenseKey::NotReady, 0x3a, 0)]].concat());
    let error = now(probe(&script, Lun::default())).unwrap_err();
    assert_eq!(
        error.to_string(),
        "TEST UNIT READY failed with NOT READY, medium not present (3ah/00h)"
    );
    let lost = (READY(), Err(ExecuteError(BlockError::Transport)));
    let script = Script::new([head(), vec![lost]].concat());
    let error = now(probe(&script, Lun::default())).unwrap_err();
    assert!(
        matches!(
            error,
            BringUpError::Execute {
                command: "TEST UNIT READY",
                ..
            }
        ),
        "{error}"
    );
}

#[test]
fn lun_lists() {
    let luns: Vec<Lun> = (0..1024).map(Lun::from_index).collect();
    let data = LunList::encode(&luns);
    let script = Script::new(vec![
        check(Cdb::report_luns(0, 4096), SenseKey::UnitAttention, 0x3f, 0x0e),
        good(Cdb::report_luns(0, 4096), &data[..4096]),
        good(Cdb::report_luns(0, 8200), &data),
    ]);
    assert_eq!(now(report_luns(&script)), Ok(luns.clone()));

    let script = Script::new(vec![illegal(Cdb::report_luns(0, 4096))]);
    assert_eq!(now(report_luns(&script)), Ok(vec![Lun::default()]));

    // A list that is always longer than what it returns, and one with a unit twice.
    let endless = [&[0xff, 0xff, 0xff, 0xf8][..], &data[4..16], &data[8..16]].concat();
    let script = Script::new(vec![
        good(Cdb::report_luns(0, 4096), &endless),
        good(Cdb::report_luns(0, 131_072), &endless),
    ]);
    assert_eq!(now(report_luns(&script)), Ok(vec![Lun::default()]));

    let script = Script::new(vec![good(Cdb::report_luns(0, 4096), &[0; 4])]);
    assert_eq!(
        now(report_luns(&script)),
        Err(BringUpError::LunList(LunListTruncated(4)))
    );
}

/// Answers anything to anything.
struct Noise {
    replies: Mutex<Vec<Reply>>,
    sent: Mutex<u32>,
}

impl Execute for Noise {
    async fn execute(&self, _: Lun, _: Cdb, data_in: u32) -> Result<Reply, ExecuteError> {
        *self.sent.lock().unwrap() += 1;
        let reply = self.replies.lock().unwrap().pop().unwrap_or_default();
        assert!(data_in <= LONGEST_LIST);
        Ok(reply)
    }

    async fn pause(&self, _: Duration) {}
}

/// Some bytes, most of them zero, so that lengths and page codes are plausible now and then.
fn noise() -> impl Strategy<Value = Vec<u8>> {
    (0usize..300, prop::collection::vec((0usize..40, any::<u8>()), 0..8)).prop_map(|(len, bytes)| {
        let mut data = vec![0; len];
        for (at, byte) in bytes {
            if let Some(place) = data.get_mut(at) {
                *place = byte;
            }
        }
        data
    })
}

proptest! {
    #[test]
    fn any_target_is_dealt_with(
        replies in prop::collection::vec(
            (
                prop::sample::select(vec![0u8, 0, 0, 0, 2, 8, 0x28]),
                prop::option::of((0u8..16, any::<u8>(), any::<u8>())),
                noise(),
            ),
            0..40,
        ),
    ) {
        let replies: Vec<Reply> = replies
            .into_iter()
            .map(|(status, sense, data)| Reply {
                status,
                sense: sense.map(|(key, asc, ascq)| Sense::new(SenseKey::from_code(key), asc, ascq)),
                data,
            })
            .collect();
        let noise = Noise { replies: Mutex::new(replies), sent: Mutex::new(0) };
        let _ = now(probe(&noise, Lun::default()));
        let _ = now(report_luns(&noise));
        prop_assert!(*noise.sent.lock().unwrap() < 1000);
    }
}

#[test]
fn bring_up_can_move_between_threads() {
    fn send<T: Send>(future: T) -> T {
        future
    }
    let script = Script::new(vec![illegal(Cdb::report_luns(0, 4096))]);
    assert!(now(send(report_luns(&script))).is_ok());
    let script = Script::new(vec![illegal(Cdb::inquiry(36))]);
    assert!(now(send(probe(&script, Lun::default()))).is_err());
}
