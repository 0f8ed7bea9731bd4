//! Memory of the machine and of processes, as the system tells it; and what this process can still take: the least of what
//! its control groups, the machine and its own limit leave.
//!
//! An allocation that fails ends the process, and so does the kernel where a control group is full. So what is large is
//! compared with this before it is asked for. What the page cache holds counts as free: it gives way.

use std::fmt;

/// What is left, and where.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Room {
    /// Bytes that can still be taken.
    pub bytes: u64,
    /// Whose bytes they are: `on this machine`, `of the 512 MiB of its control group`.
    pub of: String,
}

impl fmt::Display for Room {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} are left {}", mebibytes(self.bytes), self.of)
    }
}

/// So many heaps of the C library have what librdkafka allocates: with one for each thread, which is the library's own
/// choice, a thread frees what another one took, and up to a third of [`resident`] memory is holes.
#[cfg(all(target_os = "linux", target_env = "gnu"))]
const HEAPS: libc::c_int = 2;

/// Keeps the memory that the C library holds small; to be called before there are other threads. Who has set
/// `MALLOC_ARENA_MAX` has chosen.
pub fn few_heaps() {
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    if std::env::var_os("MALLOC_ARENA_MAX").is_none() {
        #[expect(
            unsafe_code,
            reason = "the C library has no other way to say it to the process that runs"
        )]
        // SAFETY: it changes a number of the allocator, under the allocator's own lock.
        unsafe {
            libc::mallopt(libc::M_ARENA_MAX, HEAPS);
        }
    }
}

/// What is left to this process now; `None` where the system does not say.
pub fn room() -> Option<Room> {
    of(&|path| std::fs::read_to_string(path).ok())
}

/// Memory that this process may use, in bytes: the control group's limit, else the machine's memory; `None` where
/// the system says neither.
pub fn limit() -> Option<u64> {
    let read = |file| std::fs::read_to_string(file).ok();
    let group = read("/sys/fs/cgroup/memory.max")
        .or_else(|| read("/sys/fs/cgroup/memory/memory.limit_in_bytes"))
        .and_then(|text| text.trim().parse::<u64>().ok());
    let machine = read("/proc/meminfo").and_then(|text| kibibytes(&text, "MemTotal:"));
    group.into_iter().chain(machine).min()
}

/// Memory in use and memory there is, in bytes: of the control group that leaves least, page cache not counted, or of the
/// machine where that leaves less; `None` where the system says neither.
pub fn usage() -> Option<(u64, u64)> {
    used(&|path| std::fs::read_to_string(path).ok())
}

/// CPU time that the process has used, in seconds.
pub fn cpu_seconds() -> f64 {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ProcessCPUTime);
    let whole = u32::try_from(time.tv_sec).unwrap_or(u32::MAX);
    f64::from(whole) + f64::from(u32::try_from(time.tv_nsec).unwrap_or(0)) / 1e9
}

/// Resident memory of a process in bytes, by its number or `self`; `None` where it is gone or the system does not say.
pub fn resident(process: &str) -> Option<u64> {
    let status = std::fs::read_to_string(format!("/proc/{process}/status")).ok()?;
    kibibytes(&status, "VmRSS:")
}

/// A size for a person.
pub fn mebibytes(bytes: u64) -> String {
    format!("{} MiB", bytes.div_ceil(1 << 20))
}

/// The least room that the files of `/proc` and `/sys` say there is, each read by its path.
fn of(read: &dyn Fn(&str) -> Option<String>) -> Option<Room> {
    let machine = read("/proc/meminfo")
        .and_then(|text| kibibytes(&text, "MemAvailable:"))
        .map(|bytes| Room { bytes, of: "on this machine".to_owned() });
    groups(read).chain(machine).chain(address_space(read)).min_by_key(|room| room.bytes)
}

/// What each control group of the process leaves.
fn groups(read: &dyn Fn(&str) -> Option<String>) -> impl Iterator<Item = Room> {
    limited(read).into_iter().map(|(used, limit)| Room {
        bytes: limit.saturating_sub(used),
        of: format!("of the {} of its control group", mebibytes(limit)),
    })
}

fn used(read: &dyn Fn(&str) -> Option<String>) -> Option<(u64, u64)> {
    let machine = || {
        let machine = read("/proc/meminfo")?;
        let total = kibibytes(&machine, "MemTotal:")?;
        Some((total.saturating_sub(kibibytes(&machine, "MemAvailable:")?), total))
    };
    let all = limited(read).into_iter().chain(machine());
    all.min_by_key(|(used, limit)| limit.saturating_sub(*used))
}

/// Bytes in use and the limit of each control group of the process that has one, its own and those around it, of version
/// 2 or 1.
fn limited(read: &dyn Fn(&str) -> Option<String>) -> Vec<(u64, u64)> {
    let memberships = read("/proc/self/cgroup").unwrap_or_default();
    memberships.lines().flat_map(|line| group(line, read)).collect()
}

fn group(membership: &str, read: &dyn Fn(&str) -> Option<String>) -> Vec<(u64, u64)> {
    let mut fields = membership.splitn(3, ':').skip(1);
    let (Some(controllers), Some(path)) = (fields.next(), fields.next()) else {
        return Vec::new();
    };
    let (root, limit, usage, cached) = if controllers.is_empty() {
        ("/sys/fs/cgroup", "memory.max", "memory.current", ["inactive_file", "active_file"])
    } else if controllers.split(',').any(|controller| controller == "memory") {
        let cached = ["total_inactive_file", "total_active_file"];
        ("/sys/fs/cgroup/memory", "memory.limit_in_bytes", "memory.usage_in_bytes", cached)
    } else {
        return Vec::new();
    };
    let place = |path: &str| {
        let number = |file: &str| -> Option<u64> {
            read(&format!("{root}{path}/{file}"))?.trim().parse().ok()
        };
        let (limit, usage) = (number(limit)?, number(usage)?);
        let stat = read(&format!("{root}{path}/memory.stat")).unwrap_or_default();
        let cached: u64 = cached.into_iter().filter_map(|key| counted(&stat, key)).sum();
        Some((usage.saturating_sub(cached), limit))
    };
    // In a container the path may be the host's: then only the root is there, and it is the container's.
    let ends = path.match_indices('/').map(|(end, _)| end).chain([path.len()]);
    ends.filter_map(|end| place(path.get(..end)?.trim_end_matches('/'))).collect()
}

/// What `ulimit -v` leaves.
fn address_space(read: &dyn Fn(&str) -> Option<String>) -> Option<Room> {
    let limits = read("/proc/self/limits")?;
    let line = limits.lines().find_map(|line| line.strip_prefix("Max address space"))?;
    let limit: u64 = line.split_whitespace().next()?.parse().ok()?;
    let used = kibibytes(&read("/proc/self/status")?, "VmSize:")?;
    let of = format!("of the {} of its address space (ulimit -v)", mebibytes(limit));
    Some(Room { bytes: limit.saturating_sub(used), of })
}

/// The bytes of a line `key: number kB`.
fn kibibytes(text: &str, key: &str) -> Option<u64> {
    counted(text, key).map(|kibibytes| kibibytes.saturating_mul(1024))
}

/// The number of a line `key number`.
fn counted(text: &str, key: &str) -> Option<u64> {
    text.lines().find_map(|line| {
        let mut words = line.split_whitespace();
        if words.next() == Some(key) { words.next()?.parse().ok() } else { None }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: u64 = 1 << 20;

    /// What is left by these files, and whose it is.
    fn left(files: &[(&str, &str)]) -> Option<(u64, String)> {
        let read = |path: &str| {
            files.iter().find(|(name, _)| *name == path).map(|(_, text)| (*text).to_owned())
        };
        of(&read).map(|room| (room.bytes / MIB, room.of))
    }

    const MACHINE: (&str, &str) =
        ("/proc/meminfo", "MemTotal: 8388608 kB\nMemFree: 1 kB\nMemAvailable: 4194304 kB\n");
    const UNLIMITED: (&str, &str) =
        ("/proc/self/limits", "Max address space         unlimited            unlimited  bytes\n");

    #[test]
    fn a_system_that_says_nothing_has_no_limit_that_is_known() {
        assert_eq!(left(&[]), None);
    }

    #[test]
    fn the_machine_counts_where_nothing_else_does() {
        let files = [MACHINE, UNLIMITED, ("/proc/self/cgroup", "0::/init.scope\n")];
        assert_eq!(left(&files), Some((4_096, "on this machine".to_owned())));
        let read = |path: &str| (path == MACHINE.0).then(|| MACHINE.1.to_owned());
        assert_eq!(used(&read), Some((4_096 * MIB, 8_192 * MIB)));
        assert_eq!(used(&|_| None), None);
        assert!(usage().is_some_and(|(used, limit)| 0 < used && used <= limit), "{:?}", usage());
        assert!(0.0 < cpu_seconds());
    }

    #[test]
    fn the_tightest_control_group_counts_and_its_cache_is_free() {
        let own = [
            MACHINE,
            ("/proc/self/cgroup", "0::/pods/pod\n"),
            ("/sys/fs/cgroup/pods/pod/memory.max", "max\n"),
            ("/sys/fs/cgroup/pods/memory.max", "536870912\n"),
            ("/sys/fs/cgroup/pods/memory.current", "503316480\n"),
            (
                "/sys/fs/cgroup/pods/memory.stat",
                "anon 1\nfile 9\ninactive_file 104857600\nactive_file 10485760\n",
            ),
        ];
        assert_eq!(left(&own), Some((142, "of the 512 MiB of its control group".to_owned())));
        // A container sees the host's path, and its own group as the root.
        let container = [
            MACHINE,
            ("/proc/self/cgroup", "0::/../../host/path\n"),
            ("/sys/fs/cgroup/memory.max", "268435456\n"),
            ("/sys/fs/cgroup/memory.current", "67108864\n"),
        ];
        assert_eq!(left(&container), Some((192, "of the 256 MiB of its control group".to_owned())));
    }

    #[test]
    fn the_older_control_groups_count_too() {
        let files = [
            MACHINE,
            ("/proc/self/cgroup", "5:cpu,cpuacct:/\n4:hugetlb,memory:/docker/1\n"),
            ("/sys/fs/cgroup/memory/memory.limit_in_bytes", "9223372036854771712\n"),
            ("/sys/fs/cgroup/memory/memory.usage_in_bytes", "1\n"),
            ("/sys/fs/cgroup/memory/docker/1/memory.limit_in_bytes", "134217728\n"),
            ("/sys/fs/cgroup/memory/docker/1/memory.usage_in_bytes", "104857600\n"),
            (
                "/sys/fs/cgroup/memory/docker/1/memory.stat",
                "cache 1\ntotal_inactive_file 10485760\n",
            ),
        ];
        assert_eq!(left(&files), Some((38, "of the 128 MiB of its control group".to_owned())));
        let read = |path: &str| {
            files.iter().find(|(name, _)| *name == path).map(|(_, text)| (*text).to_owned())
        };
        assert_eq!(used(&read), Some((90 * MIB, 128 * MIB)));
    }

    #[test]
    fn so_does_the_limit_of_the_process() {
        let limits = "Max address space         2147483648           unlimited            bytes\n";
        let files = [
            MACHINE,
            ("/proc/self/limits", limits),
            ("/proc/self/status", "Name:\ttm\nVmSize:\t 1048576 kB\nVmRSS:\t 5 kB\n"),
        ];
        let expect = "of the 2048 MiB of its address space (ulimit -v)";
        assert_eq!(left(&files), Some((1_024, expect.to_owned())));
    }

    #[test]
    fn this_machine_says_something() {
        assert!(room().is_some_and(|room| MIB < room.bytes), "{:?}", room());
    }
}
