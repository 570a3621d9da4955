//! Disks in memory, served through reactors: what the crate does without any network. For the lab.
//!
//! `memory --devices 3 --reactors 2 --queues 2` makes /dev/ublkb0..2, takes commands on standard input (`help`), and
//! removes everything on SIGTERM, SIGINT or the end of its input.

#![forbid(unsafe_code)]

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::error::Error;
use std::io::{BufRead, stdin};
use std::os::fd::OwnedFd;
use std::path::Path;
use std::process::ExitCode;
use std::sync::{Arc, mpsc};
use std::thread;
use std::time::{Duration, Instant};

use clap::Parser;
use rustix::fs::{FallocateFlags, MemfdFlags, fallocate, ftruncate, memfd_create};
use tokio::signal::unix::{SignalKind, signal};
use ublk_frontend::Moment;
use ublk_frontend::backend::{
    Action, AreaId, AreaRange, Backend, BlockRequest, DeviceKey, Operation, Pumped, RequestId,
};
use ublk_frontend::control::{
    Device, DeviceConfig, DeviceParams, DeviceState, Discard, Recovery, check, delete_device, flush, holders,
    list_devices, stop_device,
};
use ublk_frontend::reactor::{AddQueue, Reactor, ReactorConfig, ReactorHandle, wait};

type Fallible<T> = Result<T, Box<dyn Error + Send + Sync>>;

const LIMIT: Duration = Duration::from_secs(30);
const HELP: &str =
    "attach | detach N | cycles COUNT | unstarted | holders N | list | counters | flush N | truncate N | quit";

#[derive(Clone, Debug, Parser)]
struct Options {
    /// Disks to begin with.
    #[arg(long, default_value_t = 1)]
    devices: u32,
    #[arg(long, default_value_t = 1)]
    reactors: u16,
    /// Queues of each disk.
    #[arg(long, default_value_t = 1)]
    queues: u16,
    #[arg(long, default_value_t = 64)]
    depth: u16,
    /// Size of each disk.
    #[arg(long, default_value_t = 256)]
    mib: u32,
    #[arg(long, default_value_t = 1024)]
    max_io_kib: u32,
    #[arg(long, default_value_t = 512)]
    logical_block: u32,
    /// Time a reactor looks for work before it sleeps.
    #[arg(long, default_value_t = 30)]
    spin_us: u64,
    /// Tell the kernel of a write cache, so that it sends flushes.
    #[arg(long)]
    cache: bool,
    /// Let the devices outlive this process.
    #[arg(long)]
    recovery: bool,
    /// Delete what servers that died have left, and end.
    #[arg(long)]
    sweep: bool,
}

/// A disk is one memfd; every reactor maps it as an area.
#[derive(Clone, Debug)]
struct Disk {
    area: AreaId,
    memory: Arc<OwnedFd>,
}

enum Message {
    Attach(DeviceKey, Disk),
    Detach(DeviceKey, mpsc::SyncSender<Option<Disk>>),
}

struct Memory {
    disks: HashMap<DeviceKey, Disk>,
    arrived: VecDeque<BlockRequest>,
    copying: HashMap<RequestId, u32>,
    done: VecDeque<Action>,
}

impl Backend for Memory {
    type Message = Message;

    fn message(&mut self, message: Message, _: Moment, _: &mut Vec<Action>) {
        match message {
            Message::Attach(key, disk) => drop(self.disks.insert(key, disk)),
            Message::Detach(key, reply) => drop(reply.send(self.disks.remove(&key))),
        }
    }

    fn submit(&mut self, request: BlockRequest, _: Moment) {
        self.arrived.push_back(request);
    }

    fn copied(&mut self, id: RequestId, result: Result<(), i32>, _: Moment) {
        // Reads are completed by their copy; only writes are in the table.
        if let Some(bytes) = self.copying.remove(&id) {
            self.done.push_back(Action::Complete {
                id,
                result: result.map(|()| bytes),
            });
        }
    }

    /// Nothing here is for other reactors.
    fn copied_foreign(&mut self, _: u64, _: Result<(), i32>, _: Moment) {}

    fn ready(&mut self, _: u64, _: Moment) {}

    fn send(&mut self, _: Moment, _: &mut Vec<Action>) {}

    fn pump(&mut self, _: Moment, out: &mut Vec<Action>) -> Pumped {
        let progress = !self.arrived.is_empty() || !self.done.is_empty();
        out.extend(self.done.drain(..));
        while let Some(request) = self.arrived.pop_front() {
            out.push(self.serve(request));
        }
        Pumped {
            progress,
            deadline: None,
        }
    }

    fn prepare_sleep(&mut self) -> bool {
        self.arrived.is_empty() && self.done.is_empty()
    }
}

impl Memory {
    fn serve(&mut self, request: BlockRequest) -> Action {
        let BlockRequest {
            id,
            device,
            queue_id: _,
            operation,
            sector,
            sectors,
        } = request;
        let bytes = sectors << 9;
        let offset = (sector << 9) as u32;
        let Some(disk) = self.disks.get(&device) else {
            return Action::Complete {
                id,
                result: Err(rustix::io::Errno::NODEV.raw_os_error()),
            };
        };
        let area = disk.area;
        match operation {
            Operation::Write { .. } => {
                self.copying.insert(id, bytes);
                Action::CopyIn {
                    id,
                    into: AreaRange {
                        area,
                        offset,
                        len: bytes,
                    }
                    .into(),
                }
            }
            Operation::Read => {
                let from = AreaRange {
                    area,
                    offset,
                    len: bytes,
                };
                Action::CompleteRead { id, from: from.into() }
            }
            Operation::Flush => Action::Complete { id, result: Ok(0) },
            Operation::Discard | Operation::WriteZeroes { .. } => {
                let punch = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
                let result = fallocate(&*disk.memory, punch, sector << 9, bytes.into());
                Action::Complete {
                    id,
                    result: result.map(|()| 0).map_err(|errno| errno.raw_os_error()),
                }
            }
        }
    }
}

struct Served {
    device: Device,
    memory: Arc<OwnedFd>,
}

struct Host {
    options: Options,
    reactors: Vec<Reactor<Message>>,
    served: BTreeMap<u32, Served>,
    next_key: u32,
    keys: HashMap<u32, DeviceKey>,
}

impl Host {
    fn handles(&self) -> impl Iterator<Item = &ReactorHandle<Message>> {
        self.reactors.iter().map(Reactor::handle)
    }

    /// `start` false: added and fetched, never started, removed.
    fn attach(&mut self, start: bool) -> Fallible<u32> {
        let options = &self.options;
        let bytes = u64::from(options.mib) << 20;
        let memory = Arc::new(memfd_create("disk", MemfdFlags::CLOEXEC)?);
        ftruncate(&*memory, bytes)?;
        let discard = Discard {
            alignment: 0,
            granularity: 4096,
            max_sectors: 1 << 16,
        };
        let mut device = Device::add(&DeviceConfig {
            id: None,
            queues: options.queues,
            depth: options.depth,
            params: DeviceParams {
                logical_block: options.logical_block,
                max_io_bytes: options.max_io_kib << 10,
                write_cache: options.cache,
                fua: options.cache,
                discard: Some(discard),
                max_write_zeroes_sectors: 1 << 16,
                ..DeviceParams::new(bytes >> 9)
            },
            recovery: if options.recovery {
                Recovery::Reissue
            } else {
                Recovery::None
            },
        })?;
        let key = DeviceKey(self.next_key);
        self.next_key += 1;
        let id = device.id();
        let mut served = self.serve(key, &device, &memory, bytes);
        if served.is_ok() && start {
            served = device.start(LIMIT).map_err(Into::into);
        }
        if served.is_err() || !start {
            self.remove(key, &mut device)?;
            return served.map(|()| id);
        }
        self.keys.insert(id, key);
        self.served.insert(id, Served { device, memory });
        Ok(id)
    }

    fn serve(&self, key: DeviceKey, device: &Device, memory: &Arc<OwnedFd>, bytes: u64) -> Fallible<()> {
        for handle in self.handles() {
            let (sender, receiver) = mpsc::sync_channel(1);
            handle.add_area(memory, bytes, move |area| drop(sender.send(area)))?;
            let area = receiver.recv()??;
            handle.message(Message::Attach(
                key,
                Disk {
                    area,
                    memory: Arc::clone(memory),
                },
            ))?;
        }
        for queue_id in 0..device.queues() {
            let reactor = &self.reactors[usize::from(queue_id) % self.reactors.len()];
            let queue = AddQueue {
                device: key,
                queue_id,
                depth: device.depth(),
                char_device: device.char_device().ok_or("deleted")?,
                max_io_bytes: device.max_io_bytes(),
            };
            wait(|reply| reactor.handle().add_queue(queue, reply))??;
        }
        Ok(())
    }

    fn remove(&self, key: DeviceKey, device: &mut Device) -> Fallible<()> {
        let begun = Instant::now();
        device.stop(LIMIT)?;
        let stopped = begun.elapsed();
        for handle in self.handles() {
            wait(|reply| handle.remove_device(key, reply))?;
            let (sender, receiver) = mpsc::sync_channel(1);
            handle.message(Message::Detach(key, sender))?;
            if let Some(disk) = receiver.recv()? {
                drop(wait(|reply| handle.remove_area(disk.area, reply))??);
            }
        }
        let released = begun.elapsed();
        let deleted = device.delete(LIMIT)?;
        println!(
            "device {}: stopped {stopped:.1?}, released {released:.1?}, {deleted:?} {:.1?}",
            device.id(),
            begun.elapsed()
        );
        Ok(())
    }

    fn detach(&mut self, id: u32) -> Fallible<()> {
        let begun = Instant::now();
        let mut served = self.served.remove(&id).ok_or("no such device")?;
        let key = self.keys.remove(&id).ok_or("no such device")?;
        if let Err(error) = flush(id, LIMIT) {
            println!("{error}");
        }
        self.remove(key, &mut served.device)?;
        println!("detached {id} in {:.1} ms", begun.elapsed().as_secs_f64() * 1e3);
        Ok(())
    }

    fn command(&mut self, line: &str) -> Fallible<bool> {
        let mut words = line.split_whitespace();
        let verb = words.next().unwrap_or_default();
        let number = words.next().map(str::parse::<u32>).transpose()?;
        match (verb, number) {
            ("", _) => {}
            ("quit", _) => return Ok(false),
            ("attach", _) => {
                let begun = Instant::now();
                let id = self.attach(true)?;
                println!("attached {id} in {:.1} ms", begun.elapsed().as_secs_f64() * 1e3);
            }
            ("detach", Some(id)) => self.detach(id)?,
            ("cycles", Some(count)) => {
                for _ in 0..count {
                    let id = self.attach(true)?;
                    self.detach(id)?;
                }
                println!("cycles done");
            }
            ("unstarted", _) => drop(self.attach(false)?),
            ("holders", Some(id)) => {
                for holder in holders(id)? {
                    println!("{holder}");
                }
            }
            ("list", _) => {
                for entry in list_devices()? {
                    println!("{entry:?}");
                }
            }
            ("counters", _) => {
                for (index, handle) in self.handles().enumerate() {
                    println!("reactor {index}: {:?}", handle.counters());
                }
            }
            ("flush", Some(id)) => flush(id, LIMIT)?,
            ("truncate", Some(id)) => ftruncate(&*self.served.get(&id).ok_or("no such device")?.memory, 0)?,
            _ => println!("{HELP}"),
        }
        Ok(true)
    }
}

/// Lines of standard input; `quit` at its end or on a signal.
fn commands() -> Fallible<mpsc::Receiver<String>> {
    let (sender, receiver) = mpsc::channel();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let (mut terminate, mut interrupt) = {
        let _entered = runtime.enter();
        (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?)
    };
    let signalled = sender.clone();
    thread::spawn(move || {
        runtime.block_on(async {
            tokio::select! { _ = terminate.recv() => (), _ = interrupt.recv() => () }
        });
        drop(signalled.send("quit".into()));
    });
    thread::spawn(move || {
        for line in stdin().lock().lines().map_while(Result::ok) {
            if sender.send(line).is_err() {
                return;
            }
        }
        drop(sender.send("quit".into()));
    });
    Ok(receiver)
}

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("memory: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> Fallible<()> {
    tracing_subscriber::fmt()
        .with_writer(std::io::stderr)
        .with_env_filter(tracing_subscriber::EnvFilter::try_from_default_env().unwrap_or_else(|_| "info".into()))
        .init();
    let options = Options::parse();
    let features = check()?;
    println!("driver features {:#x}", features.bits());
    if options.sweep {
        for entry in list_devices()? {
            let deleted = match entry.state {
                DeviceState::Live
                    if entry
                        .server
                        .is_some_and(|pid| Path::new("/proc").join(pid.to_string()).exists()) =>
                {
                    continue;
                }
                DeviceState::Dead => delete_device(entry.id, LIMIT)?,
                _ => {
                    stop_device(entry.id, LIMIT)?;
                    delete_device(entry.id, LIMIT)?
                }
            };
            println!("swept {entry:?}: {deleted:?}");
        }
        return Ok(());
    }
    let commands = commands()?;
    let mut reactors = Vec::new();
    for index in 0..options.reactors {
        let config = ReactorConfig {
            spin: Duration::from_micros(options.spin_us),
            ..ReactorConfig::new(index)
        };
        reactors.push(Reactor::spawn(config, move || {
            Ok(Memory {
                disks: HashMap::new(),
                arrived: VecDeque::new(),
                copying: HashMap::new(),
                done: VecDeque::new(),
            })
        })?);
    }
    let mut host = Host {
        options,
        reactors,
        served: BTreeMap::new(),
        next_key: 0,
        keys: HashMap::new(),
    };
    for _ in 0..host.options.devices {
        let id = host.attach(true)?;
        println!("attached {id}");
    }
    println!("ready");
    for line in commands {
        match host.command(&line) {
            Ok(true) => {}
            Ok(false) => break,
            Err(error) => println!("error: {error}"),
        }
    }
    for id in host.served.keys().copied().collect::<Vec<_>>() {
        host.detach(id)?;
    }
    for reactor in host.reactors {
        reactor.handle().stop()?;
        reactor.join()?;
    }
    println!("bye");
    Ok(())
}
