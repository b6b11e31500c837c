//! The shipped units: systemd takes them as they are, and they call the program as it is. The program tells systemd how it is.

#![cfg(target_os = "linux")]
#![allow(clippy::unwrap_used, reason = "a failed step is a failed test")]
#![allow(clippy::panic, reason = "a test that can't run where it must is a failed test")]
#![allow(clippy::print_stderr, reason = "a test that did not run says so")]

use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::time::Duration;

const PROGRAM: &str = "/usr/bin/sluice";
const SERVICES: [&str; 2] = ["sluice.service", "sluice-archive.service"];
const UNITS: [&str; 3] = ["sluice.service", "sluice-archive.service", "sluice-archive.timer"];
/// The most exposure that `systemd-analyze security` may find, in tenths.
const MAX_EXPOSURE: &str = "15";

fn unit(name: &str) -> String {
    std::fs::read_to_string(Path::new("systemd").join(name)).unwrap()
}

/// Values of a key, in order.
fn values<'a>(unit: &'a str, key: &str) -> Vec<&'a str> {
    unit.lines().filter_map(|line| line.strip_prefix(key)?.strip_prefix('=')).collect()
}

/// A tool of systemd, or `None` where it is not installed and nobody requires it.
fn systemd(command: &mut Command) -> Option<Output> {
    match command.output() {
        Ok(output) => Some(output),
        Err(error) => {
            let tool = command.get_program().display().to_string();
            eprintln!("not run: {tool} can't be started: {error}");
            assert_ne!(std::env::var("SLUICE_TEST_REQUIRE_SERVICES").as_deref(), Ok("1"), "{tool} is required");
            None
        }
    }
}

fn words(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

#[test]
fn systemd_finds_nothing_wrong_with_them() {
    let dir = tempfile::tempdir().unwrap();
    let files = UNITS.map(|name| {
        let file = dir.path().join(name);
        std::fs::write(&file, unit(name).replace(PROGRAM, env!("CARGO_BIN_EXE_sluice"))).unwrap();
        file
    });
    let Some(output) = systemd(Command::new("systemd-analyze").arg("verify").args(files)) else { return };
    // An unknown key is only a warning to it.
    assert!(output.status.success() && words(&output).trim().is_empty(), "{}", words(&output));
}

#[test]
fn the_services_can_do_little_beyond_their_work() {
    for name in SERVICES {
        let file = Path::new("systemd").join(name);
        let mut analyze = Command::new("systemd-analyze");
        analyze.args(["security", "--no-pager", "--offline=true", "--threshold", MAX_EXPOSURE]).arg(file);
        let Some(output) = systemd(&mut analyze) else { return };
        let words = words(&output);
        assert!(output.status.success(), "{name}: {words}");
        let line = words.lines().find(|line| line.contains("Overall exposure level")).unwrap();
        eprintln!("{line}");
    }
}

#[test]
fn the_user_and_its_folders_can_be_made() {
    let root = tempfile::tempdir().unwrap();
    let at_root = format!("--root={}", root.path().display());
    let here = std::env::current_dir().unwrap().join("systemd");
    std::fs::create_dir_all(root.path().join("etc/sluice")).unwrap();
    let Some(users) = systemd(Command::new("systemd-sysusers").arg(&at_root).arg(here.join("sluice.sysusers"))) else {
        return;
    };
    assert!(users.status.success(), "{}", words(&users));
    let passwd = std::fs::read_to_string(root.path().join("etc/passwd")).unwrap();
    assert!(passwd.lines().any(|line| line.starts_with("sluice:") && line.ends_with("/usr/sbin/nologin")), "{passwd}");
    let mut tmpfiles = Command::new("systemd-tmpfiles");
    let Some(folders) = systemd(tmpfiles.arg("--create").arg(&at_root).arg(here.join("sluice.tmpfiles"))) else {
        return;
    };
    // Who is not root can't give folders away.
    if folders.status.success() {
        assert!(root.path().join("var/lib/sluice").is_dir() && root.path().join("etc/sluice/secrets").is_dir());
    } else {
        assert!(words(&folders).contains("ermitted"), "{}", words(&folders));
    }
}

/// With the paths of a machine in place of those of this repository.
#[test]
fn they_check_the_settings_that_they_run_with() {
    for name in SERVICES {
        let unit = unit(name);
        let (pre, run) = (values(&unit, "ExecStartPre"), values(&unit, "ExecStart"));
        assert_eq!((pre.len(), run.len()), (1, 1), "{name}");
        let settings = run[0].split_once(" --config").unwrap().1;
        assert_eq!(pre[0], format!("{PROGRAM} check --config{settings}"), "{name}");
        let args = pre[0]
            .replace("/etc/sluice/worker.yaml", "configs/worker.yaml")
            .replace("/etc/sluice/connectors", "connectors");
        let output =
            Command::new(env!("CARGO_BIN_EXE_sluice")).args(args.split(' ').skip(1)).env_clear().output().unwrap();
        assert!(output.status.success(), "{name}: {}", String::from_utf8_lossy(&output.stderr));
        // An argument that is unknown is told before settings that are not there.
        let run = run[0].replace("/etc/sluice", "/nowhere");
        let output =
            Command::new(env!("CARGO_BIN_EXE_sluice")).args(run.split(' ').skip(1)).env_clear().output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.code() == Some(2) && said.contains("/nowhere/worker.yaml"), "{name}: {said}");
    }
}

#[test]
fn the_two_services_are_locked_up_alike() {
    let [worker, archive] = SERVICES.map(|name| {
        let unit = unit(name);
        let from = unit.find("NoNewPrivileges").unwrap();
        let lines = unit[from..].lines().take_while(|line| !line.starts_with('['));
        lines.filter(|line| !line.is_empty() && !line.starts_with('#')).map(str::to_owned).collect::<Vec<_>>()
    });
    assert_eq!(worker, archive);
}

/// systemd 239 takes no notify-reload, and refuses the whole unit then.
#[test]
fn the_worker_is_of_a_type_that_old_systemd_knows() {
    assert_eq!(values(&unit("sluice.service"), "Type"), ["notify"]);
    assert_eq!(values(&unit("sluice-archive.service"), "Type"), ["oneshot"]);
}

/// A worker under a systemd that is this test.
struct Supervised {
    socket: UnixDatagram,
    worker: Child,
    _dir: tempfile::TempDir,
}

impl Supervised {
    fn start(name: &str, watchdog: Duration) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let path = |name: &str| dir.path().join(name);
        std::fs::create_dir(path("connectors")).unwrap();
        // Nobody listens at port 1: the worker waits for Kafka, and is ready all the same.
        std::fs::write(
            path("worker.yaml"),
            format!(
                "kafka: {{ bootstrap_servers: [\"127.0.0.1:1\"] }}\nspool: {{ dir: \"{}\" }}\n\
                 http: {{ listen: \"127.0.0.1:0\" }}\nshutdown_timeout: 5m\n",
                path("spool").display()
            ),
        )
        .unwrap();
        let sink = path("archive");
        std::fs::write(
            path("connectors/app-logs.yaml"),
            format!(
                "topics: [applogs]\napp_id: {{ from: json, pointer: /app_id }}\nsink: {{ url: \"file://{}\" }}\n",
                sink.display()
            ),
        )
        .unwrap();
        let name = format!("sluice-test-{name}-{}", std::process::id());
        let socket = UnixDatagram::bind_addr(&SocketAddr::from_abstract_name(&name).unwrap()).unwrap();
        // A hang is a failure; nothing else is judged by it.
        socket.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
        let worker = Command::new(env!("CARGO_BIN_EXE_sluice"))
            .arg("run")
            .arg("--config")
            .arg(path("worker.yaml"))
            .arg("--connectors")
            .arg(path("connectors"))
            .env("NOTIFY_SOCKET", format!("@{name}"))
            .env("WATCHDOG_USEC", watchdog.as_micros().to_string())
            .stdin(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        Self { socket, worker, _dir: dir }
    }

    /// Messages until one has `line`, that one last.
    fn until(&self, line: &str) -> Vec<String> {
        let mut all = Vec::new();
        loop {
            let mut bytes = [0; 4096];
            let length = self.socket.recv(&mut bytes).unwrap_or_else(|error| panic!("no {line}: {error}: {all:?}"));
            all.push(String::from_utf8(bytes[..length].to_vec()).unwrap());
            if all.last().unwrap().lines().any(|found| found == line) {
                return all;
            }
        }
    }

    fn signal(&self, name: &str) {
        let status = Command::new("kill").args(["-s", name, &self.worker.id().to_string()]).status().unwrap();
        assert!(status.success());
    }
}

impl Drop for Supervised {
    fn drop(&mut self) {
        let _ = self.worker.kill();
        let _ = self.worker.wait();
    }
}

#[test]
fn systemd_is_told_of_the_start_of_life_and_of_the_stop() {
    let mut supervised = Supervised::start("life", Duration::from_secs(1));
    assert_eq!(supervised.until("READY=1"), ["READY=1"], "nothing before it");
    supervised.until("STATUS=waiting for Kafka, or for topics");
    for _ in 0..3 {
        supervised.until("WATCHDOG=1");
    }
    supervised.signal("TERM");
    let told = supervised.until("STOPPING=1");
    // shutdown_timeout and a little more, whatever TimeoutStopSec= says.
    assert!(told.last().unwrap().lines().any(|line| line == "EXTEND_TIMEOUT_USEC=315000000"), "{told:?}");
    assert!(supervised.worker.wait().unwrap().success());
}

/// The watchdog is systemd's, which kills; here it is shown that a process that does not run feeds nothing, and goes on.
#[test]
fn a_worker_that_stands_still_does_not_feed_the_watchdog() {
    let supervised = Supervised::start("still", Duration::from_millis(400));
    supervised.until("WATCHDOG=1");
    supervised.signal("STOP");
    supervised.socket.set_nonblocking(true).unwrap();
    // What was sent before the signal arrived.
    let drain = |bytes: &mut [u8]| std::iter::from_fn(|| supervised.socket.recv(bytes).ok()).count();
    let mut bytes = [0; 4096];
    while state_of(supervised.worker.id()) != 'T' {
        std::thread::yield_now();
    }
    drain(&mut bytes);
    supervised.socket.set_nonblocking(false).unwrap();
    supervised.socket.set_read_timeout(Some(Duration::from_secs(2))).unwrap();
    assert!(supervised.socket.recv(&mut bytes).is_err(), "it was fed while it stood");
    supervised.socket.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
    supervised.signal("CONT");
    supervised.until("WATCHDOG=1");
}

/// As the kernel has it: R, S, T for stopped.
fn state_of(pid: u32) -> char {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    stat.rsplit(") ").next().unwrap().chars().next().unwrap()
}

/// docs/install.md says since when systemd has what the units use.
#[test]
fn each_newer_directive_is_in_the_guide() {
    // Before version 220, or not a directive of its own.
    const OLD: &[&str] = &[
        "After",
        "CapabilityBoundingSet",
        "Conflicts",
        "Description",
        "Environment",
        "EnvironmentFile",
        "ExecReload",
        "ExecStart",
        "ExecStartPre",
        "Group",
        "IOSchedulingClass",
        "LimitNOFILE",
        "Nice",
        "NoNewPrivileges",
        "NotifyAccess",
        "OnCalendar",
        "Persistent",
        "PrivateDevices",
        "PrivateTmp",
        "ProtectHome",
        "Restart",
        "RestartPreventExitStatus",
        "RestartSec",
        "RestrictAddressFamilies",
        "SystemCallArchitectures",
        "SystemCallErrorNumber",
        "TimeoutStartSec",
        "TimeoutStopSec",
        "Type",
        "UMask",
        "User",
        "WantedBy",
        "Wants",
        "WatchdogSec",
    ];
    let guide = std::fs::read_to_string("docs/install.md").unwrap();
    let table = guide.split("| directive | since |").nth(1).unwrap();
    for name in UNITS {
        for line in unit(name).lines().filter(|line| !line.starts_with('#')) {
            let Some((key, _)) = line.split_once('=') else { continue };
            assert!(OLD.contains(&key) || table.contains(&format!("`{key}`")), "{name}: since when is there {key}?");
        }
    }
}
