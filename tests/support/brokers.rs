//! Real brokers of a test's own, by dev/kafka.
//!
//! Owns: starting, stopping and killing them. Does not own: what they are asked.

use std::process::Command;

use super::kafka::repository;

/// Brokers that live as long as this.
pub struct Brokers {
    pub dir: tempfile::TempDir,
    count: usize,
}

impl Brokers {
    pub fn start(count: usize) -> Self {
        Self::start_with(count, &[])
    }

    /// One broker of an older Kafka.
    pub fn start_version(version: &str) -> Self {
        Self::start_with(1, &["--version", version])
    }

    fn start_with(count: usize, arguments: &[&str]) -> Self {
        let brokers = Self { dir: tempfile::tempdir().unwrap(), count };
        brokers.run(&["start"], &[&["--brokers", &count.to_string()], arguments].concat());
        brokers
    }

    pub fn run(&self, command: &[&str], arguments: &[&str]) -> String {
        let output = Command::new(repository().join("dev/kafka"))
            .args(command)
            .args(["--run-dir", &self.dir.path().display().to_string()])
            .args(arguments)
            .output()
            .unwrap();
        assert!(output.status.success(), "dev/kafka {command:?}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    }

    /// As `bootstrap_servers` takes it.
    pub fn address(&self) -> String {
        let line = self.run(&["env"], &[]);
        line.trim().strip_prefix("export SLUICE_TEST_KAFKA=").unwrap().to_owned()
    }
}

impl Drop for Brokers {
    fn drop(&mut self) {
        let _ = Command::new(repository().join("dev/kafka"))
            .args(["kill", "--run-dir", &self.dir.path().display().to_string()])
            .args((1..=self.count).map(|broker| broker.to_string()))
            .status();
    }
}
