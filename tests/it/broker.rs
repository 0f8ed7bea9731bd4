//! A real Apache Kafka for a test: one broker, or several, in memory-backed storage, gone when dropped.

use std::io::Write as _;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU16, Ordering};

use tokio::sync::{Semaphore, SemaphorePermit};

use crate::world::wait_on;

/// One cluster at a time: several on a small machine slow each other down until nothing is ready.
static ONE: Semaphore = Semaphore::const_new(1);

/// A running broker, or a cluster of them.
#[derive(Debug)]
pub(crate) struct Broker {
    /// Its storage, and with `KAFKA_SASL=1` its certificates in `tls`.
    pub(crate) home: PathBuf,
    _one: SemaphorePermit<'static>,
    /// `bootstrap.servers`.
    pub(crate) servers: String,
    /// The same brokers for the test's own clients: past the proxy where there is one.
    pub(crate) direct: String,
    /// The first broker's port; broker `i`'s is `10 * (i - 1)` above it.
    port: u16,
}

impl Broker {
    /// Starts a broker on a free port. `None`, and a line on stderr, where Java or its jars are missing.
    pub(crate) fn start() -> Option<Self> {
        Self::start_with(&[])
    }

    /// Starts a broker with these variables of `broker.sh`.
    pub(crate) fn start_with(variables: &[(&str, &str)]) -> Option<Self> {
        Self::start_many(1, variables)
    }

    /// Starts a cluster whose brokers say that they are found at these addresses, a proxy's, one for each.
    pub(crate) fn behind(addresses: &[String]) -> Option<Self> {
        let mut cluster =
            Self::start_many(addresses.len(), &[("KAFKA_ADVERTISED", &addresses.join(" "))])?;
        let ids = 1..=addresses.len();
        let direct: Vec<String> = ids.map(|id| cluster.address(id, 3)).collect();
        cluster.direct = direct.join(",");
        Some(cluster)
    }

    fn start_many(brokers: usize, variables: &[(&str, &str)]) -> Option<Self> {
        if let Err(why) = possible() {
            let line = format!("skipped: {why}; tests against a real broker did not run\n");
            std::io::stderr().write_all(line.as_bytes()).unwrap();
            return None;
        }
        let one = wait_on(ONE.acquire()).unwrap();
        let port = free_ports(brokers);
        let shm = Path::new("/dev/shm");
        let base = if shm.is_dir() { shm.to_path_buf() } else { std::env::temp_dir() };
        let home = base.join(format!("tidemill-kafka-{}-{port}", std::process::id()));
        let up = ["up", &home.to_string_lossy(), &port.to_string(), &brokers.to_string()];
        let started = script(&up, variables);
        let servers = started.trim().to_owned();
        assert!(servers.contains(':'), "broker.sh up printed {started:?}");
        Some(Self { _one: one, home, direct: servers.clone(), servers, port })
    }

    /// Where a listener of broker `id` (from 1) is, past any proxy: 0 the clients', 3 the brokers' own.
    pub(crate) fn address(&self, id: usize, listener: usize) -> String {
        format!("127.0.0.1:{}", usize::from(self.port) + 10 * (id - 1) + listener)
    }

    /// Kills it as a crash would.
    pub(crate) fn kill9(&self) {
        script(&["kill9", self.home.to_str().unwrap()], &[]);
    }

    /// Starts it again on the same storage and port.
    pub(crate) fn restart(&self) {
        script(&["restart", self.home.to_str().unwrap()], &[]);
    }

    /// Kills one broker of a cluster.
    pub(crate) fn kill9_one(&self, id: i32) {
        script(&["kill9", self.home.to_str().unwrap(), &id.to_string()], &[]);
    }

    /// Starts one broker of a cluster again.
    pub(crate) fn restart_one(&self, id: i32) {
        script(&["restart", self.home.to_str().unwrap(), &id.to_string()], &[]);
    }

    /// Sends a signal to one broker of a cluster.
    pub(crate) fn signal_one(&self, id: i32, name: &str) {
        let pid = std::fs::read_to_string(self.home.join(id.to_string()).join("pid")).unwrap();
        let sent = Command::new("kill").args([&format!("-{name}"), pid.trim()]).status().unwrap();
        assert!(sent.success(), "SIG{name} to broker {id}");
    }
}

impl Drop for Broker {
    fn drop(&mut self) {
        script(&["kill9", self.home.to_str().unwrap()], &[]);
        if let Err(error) = std::fs::remove_dir_all(&self.home) {
            let line = format!("remove {}: {error}\n", self.home.display());
            std::io::stderr().write_all(line.as_bytes()).unwrap();
        }
    }
}

fn possible() -> Result<(), &'static str> {
    let runs = |program: &str| {
        Command::new(program).arg("-version").stdout(Stdio::null()).stderr(Stdio::null()).status()
    };
    if runs("java").is_err() {
        return Err("no java");
    }
    let jars = std::env::var_os("KAFKA_LIBS").map_or_else(
        || {
            let home = std::env::var_os("HOME").map(PathBuf::from).unwrap_or_default();
            let cache = std::env::var_os("TIDEMILL_CACHE");
            let cache = cache.map_or_else(|| home.join(".cache/tidemill-test"), PathBuf::from);
            cache.join("kafka-4.2.2/libs")
        },
        PathBuf::from,
    );
    if jars.join("kafka_2.13-4.2.2.jar").is_file() || runs("mvn").is_ok() {
        return Ok(());
    }
    Err("no mvn, and Kafka's jars are not in the cache")
}

/// A port that is free, as are the others of so many brokers. No two tests of a process are given the same.
fn free_ports(brokers: usize) -> u16 {
    static GIVEN: AtomicU16 = AtomicU16::new(0);
    let free = |port| TcpListener::bind(("127.0.0.1", port)).is_ok();
    let seed = u16::try_from(std::process::id() % 20_000).unwrap();
    let next = || GIVEN.fetch_add(17, Ordering::Relaxed);
    let mut candidates = (0..100).map(|_| 20_000 + (seed + next()) % 10_000);
    let firsts = |port: u16| (port..).step_by(10).take(brokers);
    candidates.find(|port| firsts(*port).all(|p| free(p) && free(p + 1) && free(p + 3))).unwrap()
}

fn script(arguments: &[&str], variables: &[(&str, &str)]) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/kafka/broker.sh");
    let output =
        Command::new(path).args(arguments).envs(variables.iter().copied()).output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "broker.sh {arguments:?}: {said}");
    String::from_utf8_lossy(&output.stdout).into_owned()
}
