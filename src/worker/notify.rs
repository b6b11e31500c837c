//! What the worker tells systemd (sd_notify(3)): ready, status, reloading, stopping, alive.
//!
//! Owns: the datagrams, where they go, what wakes the watchdog's feeding. Does not own: whether it is fed
//! ([`super::watchdog`]), reloading, stopping.
//!
//! Without `NOTIFY_SOCKET` nothing happens. Nothing that is told may stop or slow the archive: what can't be sent is said once
//! in the log.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::io;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use super::watchdog::Watchdog;
use crate::api::http::Board;
use crate::clock;
use crate::task::status::{TaskReport, TaskState};

/// Longest time between two looks at the status.
const STATUS_EVERY: Duration = Duration::from_secs(10);
/// What a stop may last beyond `shutdown_timeout`: uploads are cut there, leases, sockets and the last copy of lows follow.
const AFTER_SHUTDOWN: Duration = Duration::from_secs(15);
/// A reader that does not read is waited for no longer.
const SEND_PATIENCE: Duration = Duration::from_secs(1);

/// The way to systemd. Clones lead to the same.
#[derive(Clone, Debug, Default)]
pub struct Notify {
    door: Option<Arc<Door>>,
    watchdog: Option<Duration>,
}

#[derive(Debug)]
struct Door {
    socket: UnixDatagram,
    to: SocketAddr,
    failed: AtomicBool,
}

impl Notify {
    /// As `NOTIFY_SOCKET`, `WATCHDOG_USEC` and `WATCHDOG_PID` of this process say.
    pub fn from_environment() -> Self {
        Self::new(|name| std::env::var_os(name), std::process::id())
    }

    /// The same from other variables, for a process `pid`. What makes no sense is said in the log and left out.
    pub fn new(variable: impl Fn(&str) -> Option<OsString>, pid: u32) -> Self {
        let Some(address) = variable("NOTIFY_SOCKET").filter(|address| !address.is_empty()) else {
            return Self::default();
        };
        let door = match Door::open(&address) {
            Ok(door) => Arc::new(door),
            Err(error) => {
                tracing::warn!(?address, %error, "NOTIFY_SOCKET is no socket's address: systemd is told nothing");
                return Self::default();
            }
        };
        let number = |name: &str| variable(name)?.to_str()?.parse::<u64>().ok();
        let ours = variable("WATCHDOG_PID").is_none() || number("WATCHDOG_PID") == Some(u64::from(pid));
        let watchdog = number("WATCHDOG_USEC").filter(|&usec| ours && usec > 0).map(Duration::from_micros);
        Self { door: Some(door), watchdog }
    }

    /// The worker has its settings, its spool and its HTTP address; Kafka may still be away.
    pub fn ready(&self) {
        self.send("READY=1");
    }

    /// A reload begins; [`Self::reloaded`] must follow, also where it failed.
    pub fn reloading(&self) {
        if self.door.is_some() {
            self.send(&format!(
                "RELOADING=1\nMONOTONIC_USEC={}\nSTATUS=reading the settings again",
                clock::monotonic_usec()
            ));
        }
    }

    /// A reload has ended, with the new settings or with the old ones.
    pub fn reloaded(&self) {
        self.send("READY=1");
    }

    /// The worker ends within `shutdown_timeout` and a little more, whatever `TimeoutStopSec=` says.
    pub fn stopping(&self, shutdown_timeout: Duration) {
        let longest = shutdown_timeout.saturating_add(AFTER_SHUTDOWN);
        self.send(&format!(
            "STOPPING=1\nSTATUS=finishing uploads in flight\nEXTEND_TIMEOUT_USEC={}",
            u64::try_from(longest.as_micros()).unwrap_or(u64::MAX)
        ));
    }

    /// Tells how the tasks are, and feeds the watchdog while their loops turn, until the answer is aborted; tells of the stop.
    pub fn keep(&self, board: &Arc<Board>, stop: &CancellationToken, shutdown_timeout: Duration) -> Keeping {
        let last = Last { notify: self.clone(), stop: stop.clone(), shutdown_timeout, is_told: Arc::default() };
        if self.door.is_none() {
            return Keeping { task: None, last };
        }
        let (notify, board, stop, word) = (self.clone(), Arc::clone(board), stop.clone(), last.clone());
        let task = tokio::spawn(async move {
            // Four looks within the time that the watchdog allows: a loop turns each second, one look may find it between two turns.
            let every = notify.watchdog.map_or(STATUS_EVERY, |allowed| (allowed / 4).min(STATUS_EVERY));
            let (mut watchdog, mut told) = (Watchdog::default(), String::new());
            loop {
                if notify.watchdog.is_some() {
                    notify.feed(&mut watchdog, &board);
                }
                let status = in_words(&board.reports());
                let stopping = stop.is_cancelled();
                if stopping {
                    word.say();
                } else if status != told {
                    notify.send(&format!("STATUS={status}"));
                    told = status;
                }
                tokio::select! {
                    biased;
                    () = stop.cancelled(), if !stopping => {}
                    () = tokio::time::sleep(every) => {}
                }
            }
        });
        Keeping { task: Some(task), last }
    }

    fn feed(&self, watchdog: &mut Watchdog, board: &Board) {
        let turns: BTreeMap<_, _> = board.turns().into_iter().collect();
        match watchdog.feed(turns) {
            Ok(()) => self.send("WATCHDOG=1"),
            Err(standing) => {
                for (connector, topic, task) in standing {
                    tracing::error!(connector, topic, task, "the task's loop stands still: the watchdog is not fed");
                }
            }
        }
    }

    fn send(&self, text: &str) {
        if let Some(door) = &self.door {
            door.send(text);
        }
    }
}

/// Runs until this is dropped.
#[derive(Debug)]
pub struct Keeping {
    task: Option<JoinHandle<()>>,
    last: Last,
}

/// The word of the stop, which is said once.
#[derive(Clone, Debug)]
struct Last {
    notify: Notify,
    stop: CancellationToken,
    shutdown_timeout: Duration,
    is_told: Arc<AtomicBool>,
}

impl Last {
    fn say(&self) {
        if self.stop.is_cancelled() && !self.is_told.swap(true, Ordering::Relaxed) {
            self.notify.stopping(self.shutdown_timeout);
        }
    }
}

impl Drop for Keeping {
    fn drop(&mut self) {
        if let Some(task) = &self.task {
            task.abort();
        }
        // A worker that has nothing to finish may end before its task has seen the stop.
        self.last.say();
    }
}

impl Door {
    fn open(address: &OsString) -> io::Result<Self> {
        let to = match address.as_bytes() {
            [b'@', name @ ..] => abstract_address(name)?,
            [b'/', ..] => SocketAddr::from_pathname(address)?,
            _ => return Err(io::Error::new(io::ErrorKind::InvalidInput, "it begins neither with / nor with @")),
        };
        let socket = UnixDatagram::unbound()?;
        socket.set_write_timeout(Some(SEND_PATIENCE))?;
        Ok(Self { socket, to, failed: AtomicBool::new(false) })
    }

    fn send(&self, text: &str) {
        match self.socket.send_to_addr(text.as_bytes(), &self.to) {
            Ok(_) => self.failed.store(false, Ordering::Relaxed),
            Err(error) if !self.failed.swap(true, Ordering::Relaxed) => {
                tracing::warn!(to = ?self.to, %error, "systemd can't be told how the worker is, trying again");
            }
            Err(_) => {}
        }
    }
}

/// A name that lies in no folder, which only Linux has.
#[cfg(target_os = "linux")]
fn abstract_address(name: &[u8]) -> io::Result<SocketAddr> {
    use std::os::linux::net::SocketAddrExt as _;
    SocketAddr::from_abstract_name(name)
}

#[cfg(not(target_os = "linux"))]
fn abstract_address(_: &[u8]) -> io::Result<SocketAddr> {
    Err(io::Error::from(io::ErrorKind::Unsupported))
}

/// One line for `systemctl status`.
fn in_words(tasks: &[TaskReport]) -> String {
    let count = |state: TaskState| tasks.iter().filter(|task| task.state == state).count();
    let (running, failed) = (count(TaskState::Running), count(TaskState::Failed) + count(TaskState::Restarting));
    let lag: i64 = tasks.iter().map(|task| task.lag_records).sum();
    match (tasks.len(), failed) {
        (0, _) => "waiting for Kafka, or for topics".to_owned(),
        (all, 0) => format!("{running} of {all} tasks run, lag {lag} records"),
        (all, _) => format!("{running} of {all} tasks run, {failed} failed, lag {lag} records; see `sluice status`"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::task::status::TaskStatus;

    fn notify(variables: &[(&str, &str)]) -> Notify {
        let all: BTreeMap<String, OsString> =
            variables.iter().map(|(name, value)| ((*name).to_owned(), OsString::from(value))).collect();
        Notify::new(|name| all.get(name).cloned(), 7)
    }

    #[cfg(target_os = "linux")]
    fn received(socket: &UnixDatagram) -> String {
        let mut bytes = [0; 4096];
        socket.set_nonblocking(true).unwrap();
        let length = socket.recv(&mut bytes).unwrap();
        String::from_utf8(bytes[..length].to_vec()).unwrap()
    }

    /// A socket in a folder, and the way to it.
    #[cfg(target_os = "linux")]
    fn named_socket() -> (tempfile::TempDir, UnixDatagram, Notify) {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("notify");
        let socket = UnixDatagram::bind(&path).unwrap();
        let notify = notify(&[("NOTIFY_SOCKET", path.to_str().unwrap())]);
        (dir, socket, notify)
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn sockets_of_both_kinds_are_told() {
        let (_dir, named, to_named) = named_socket();
        to_named.ready();
        assert_eq!(received(&named), "READY=1");
        let name = format!("sluice-notify-{}", std::process::id());
        let hidden = UnixDatagram::bind_addr(&abstract_address(name.as_bytes()).unwrap()).unwrap();
        let notify = notify(&[("NOTIFY_SOCKET", &format!("@{name}"))]);
        notify.stopping(Duration::from_secs(60));
        assert_eq!(received(&hidden), "STOPPING=1\nSTATUS=finishing uploads in flight\nEXTEND_TIMEOUT_USEC=75000000");
        notify.reloading();
        let told = received(&hidden);
        let usec = told.strip_prefix("RELOADING=1\nMONOTONIC_USEC=").unwrap().split('\n').next().unwrap();
        assert!(usec.parse::<u64>().unwrap() > 0, "{told}");
        notify.reloaded();
        assert_eq!(received(&hidden), "READY=1");
    }

    /// A worker with nothing to finish ends before anything else has run.
    #[cfg(target_os = "linux")]
    #[test]
    fn the_stop_is_told_once_also_where_nobody_has_seen_it() {
        let (_dir, socket, notify) = named_socket();
        let stop = CancellationToken::new();
        let last =
            Last { notify, stop: stop.clone(), shutdown_timeout: Duration::from_secs(1), is_told: Arc::default() };
        last.say();
        let keeping = Keeping { task: None, last: last.clone() };
        stop.cancel();
        drop(keeping);
        assert!(received(&socket).starts_with("STOPPING=1\n"));
        last.say();
        assert_eq!(socket.recv(&mut [0; 16]).unwrap_err().kind(), io::ErrorKind::WouldBlock);
    }

    #[test]
    fn without_a_socket_or_with_a_wrong_one_nothing_happens() {
        for variables in [&[][..], &[("NOTIFY_SOCKET", "")], &[("NOTIFY_SOCKET", "vsock:2:1")]] {
            let notify = notify(variables);
            assert!(notify.door.is_none());
            notify.ready();
        }
        // Nobody reads there.
        notify(&[("NOTIFY_SOCKET", "/nowhere/notify")]).ready();
    }

    #[test]
    fn the_watchdog_of_another_process_is_not_ours() {
        let watchdog = |more: &[(&str, &str)]| notify(&[&[("NOTIFY_SOCKET", "@x")], more].concat()).watchdog;
        let minute = Some(Duration::from_secs(60));
        assert_eq!(watchdog(&[("WATCHDOG_USEC", "60000000")]), minute);
        assert_eq!(watchdog(&[("WATCHDOG_USEC", "60000000"), ("WATCHDOG_PID", "7")]), minute);
        assert_eq!(watchdog(&[("WATCHDOG_USEC", "60000000"), ("WATCHDOG_PID", "8")]), None);
        assert_eq!(watchdog(&[("WATCHDOG_USEC", "60000000"), ("WATCHDOG_PID", "x")]), None);
        assert_eq!(watchdog(&[("WATCHDOG_USEC", "0")]), None);
        assert_eq!(watchdog(&[]), None);
    }

    #[test]
    fn the_status_is_one_line() {
        let task = |state, lag| {
            let status = TaskStatus::new("app-logs", "applogs", 0);
            status.set_state(state, None, None);
            status.update(|report| report.lag_records = lag);
            status.report()
        };
        assert_eq!(in_words(&[]), "waiting for Kafka, or for topics");
        let tasks = [task(TaskState::Running, 5), task(TaskState::Unassigned, 0)];
        assert_eq!(in_words(&tasks), "1 of 2 tasks run, lag 5 records");
        let tasks = [task(TaskState::Running, 5), task(TaskState::Failed, 7)];
        assert_eq!(in_words(&tasks), "1 of 2 tasks run, 1 failed, lag 12 records; see `sluice status`");
    }
}
