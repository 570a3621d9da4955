//! ibsim and opensm as processes of a test, with everything they write in a folder of its own.

use std::fs::{self, File};
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use srp_discovery::ports::{Port, PortState};

use super::client::{Attached, Client};
use super::relay::Relay;

/// Four channel adapters at one switch.
const NET: &str = r#"
Switch	8 "Switch1"
[1]	"Hca1"[1]
[2]	"Hca2"[1]
[3]	"Hca3"[1]
[4]	"Hca4"[1]

Hca	1 "Hca1"
[1]	"Switch1"[1]

Hca	1 "Hca2"
[1]	"Switch1"[2]

Hca	1 "Hca3"
[1]	"Switch1"[3]

Hca	1 "Hca4"
[1]	"Switch1"[4]
"#;

/// What the manager may take to do something.
pub(crate) const PATIENCE: Duration = Duration::from_secs(40);

/// A program of the simulation: installed, or unpacked by `lab/setup` where `UBLK_SRP_IBSIM` says.
fn program(name: &str) -> Command {
    let Some(root) = unpacked() else {
        return Command::new(name);
    };
    let place = ["usr/bin", "usr/sbin"].map(|folder| root.join(folder).join(name));
    let mut command = Command::new(place.iter().find(|path| path.exists()).unwrap_or(&place[0]));
    command.env("LD_LIBRARY_PATH", libraries(&root));
    command
}

fn unpacked() -> Option<PathBuf> {
    std::env::var_os("UBLK_SRP_IBSIM").map(PathBuf::from)
}

/// Debian's folder for libraries, whatever the architecture.
fn libraries(root: &Path) -> PathBuf {
    let lib = root.join("usr/lib");
    let mut folders = fs::read_dir(&lib)
        .into_iter()
        .flatten()
        .flatten()
        .map(|entry| entry.path());
    folders.find(|folder| folder.join("umad2sim").exists()).unwrap_or(lib)
}

/// A simulated fabric without a subnet manager.
pub(crate) struct Fabric {
    pub(crate) socket: String,
    folder: PathBuf,
    ibsim: Child,
}

impl Fabric {
    pub(crate) fn new() -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let socket = format!("srp{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
        let folder = std::env::temp_dir().join(&socket);
        fs::create_dir_all(&folder).unwrap();
        fs::write(folder.join("net"), NET).unwrap();
        let log = File::create(folder.join("ibsim.log")).unwrap();
        let ibsim = program("ibsim")
            .args(["-s", "net"])
            .current_dir(&folder)
            .env("IBSIM_SOCKNAME", &socket)
            // Its console: commands go there, and at its end ibsim would spin.
            .stdin(Stdio::piped())
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            .spawn()
            .expect("ibsim is installed (Debian: ibsim-utils)");
        Self { socket, folder, ibsim }
    }

    /// Gives ibsim a command, such as `Unlink "Hca3"[1]`.
    pub(crate) fn command(&mut self, text: &str) {
        let console = self.ibsim.stdin.as_mut().unwrap();
        console.write_all(format!("{text}\n").as_bytes()).unwrap();
        console.flush().unwrap();
    }

    /// A program at `node`, once ibsim is there; `reports`: what is no answer comes too.
    pub(crate) fn client(&self, node: &str, reports: bool) -> Client {
        let probe = super::client::name(&format!("{}:ctl", self.socket));
        until("ibsim listens", || {
            let socket = std::os::unix::net::UnixDatagram::unbound().unwrap();
            socket.connect_addr(&probe).is_ok().then_some(())
        });
        Client::new(Attached::new(&self.socket, node, reports))
    }

    /// A subnet manager at `node`; who has the higher priority is master.
    pub(crate) fn manager(&self, node: &str, priority: u8, partitions: &str) -> Manager {
        self.manager_that_remembers(node, priority, partitions, "")
    }

    /// The same, and it has `lids` in its memory: lines of a port GUID, first and last LID.
    pub(crate) fn manager_that_remembers(&self, node: &str, priority: u8, partitions: &str, lids: &str) -> Manager {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let front = format!("{}m{}", self.socket, NEXT.fetch_add(1, Ordering::Relaxed));
        let folder = self.folder.join(&front);
        fs::create_dir_all(&folder).unwrap();
        fs::write(folder.join("partitions.conf"), partitions).unwrap();
        fs::write(folder.join("guid2lid"), lids).unwrap();
        let relay = Relay::new(&front, &self.socket);
        let log = File::create(folder.join("out")).unwrap();
        let root = unpacked().unwrap_or_else(|| "/".into());
        let library = libraries(&root).join("umad2sim/libumad2sim.so");
        assert!(library.exists(), "libumad2sim.so is installed (Debian: ibsim-utils)");
        let sweep = fs::write(
            folder.join("conf"),
            "sweep_interval 2\nsminfo_polling_timeout 1000\npolling_retry_number 2\n",
        );
        sweep.unwrap();
        let opensm = program("opensm")
            .args([
                "-F",
                "conf",
                "-P",
                "partitions.conf",
                "-f",
                "log",
                "-p",
                &priority.to_string(),
            ])
            .current_dir(&folder)
            .env("LD_PRELOAD", library)
            .env("IBSIM_SOCKNAME", &front)
            .env("SIM_HOST", node)
            .env("OSM_TMP_DIR", &folder)
            .env("OSM_CACHE_DIR", &folder)
            .stdin(Stdio::null())
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            .spawn()
            .expect("opensm is installed");
        Manager { opensm, _relay: relay }
    }
}

impl Drop for Fabric {
    fn drop(&mut self) {
        let _ = self.ibsim.kill();
        let _ = self.ibsim.wait();
        if thread::panicking() {
            eprintln!("what ibsim and opensm wrote is in {}", self.folder.display());
        } else {
            let _ = fs::remove_dir_all(&self.folder);
        }
    }
}

/// A running opensm; killed when dropped.
pub(crate) struct Manager {
    opensm: Child,
    _relay: Relay,
}

impl Drop for Manager {
    fn drop(&mut self) {
        let _ = self.opensm.kill();
        let _ = self.opensm.wait();
    }
}

/// Everybody in the default partition, as opensm has it without a configuration.
pub(crate) const ONE_PARTITION: &str = "Default=0x7fff, ipoib : ALL=full, ALL_SWITCHES=full, SELF=full ;\n";

/// Waits for something to become so.
pub(crate) fn until<R>(what: &str, mut check: impl FnMut() -> Option<R>) -> R {
    let end = Instant::now() + PATIENCE;
    loop {
        if let Some(result) = check() {
            return result;
        }
        assert!(Instant::now() < end, "{what}: not within {PATIENCE:?}");
        thread::sleep(Duration::from_millis(100));
    }
}

/// The port of `client` once a manager has brought it up, and `fits`.
pub(crate) fn active(client: &Client, fits: impl Fn(&Port) -> bool) -> Port {
    until("the port is up as wanted", || {
        let port = client.node.port();
        (port.state == PortState::Active && port.sm_lid != 0 && fits(&port)).then_some(port)
    })
}
