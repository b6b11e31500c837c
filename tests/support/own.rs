//! Services of a test's own, which it may kill.
//!
//! Owns: starting and ending one instance of dev/kafka or dev/minio. Does not own: what is expected. Redis: `group::OwnRedis`.

use std::process::Command;

use super::kafka::repository;

/// Lives as long as this.
#[derive(Debug)]
pub struct Own {
    tool: &'static str,
    /// Of a Kafka.
    brokers: usize,
    dir: tempfile::TempDir,
}

impl Own {
    pub fn kafka(brokers: usize) -> Self {
        let own = Self { tool: "kafka", brokers, dir: tempfile::tempdir().unwrap() };
        own.run("start", &["--brokers", &brokers.to_string()]);
        own
    }

    pub fn minio() -> Self {
        let own = Self { tool: "minio", brokers: 0, dir: tempfile::tempdir().unwrap() };
        own.run("start", &[]);
        own
    }

    /// `start` after a kill brings back what was on disk.
    pub fn run(&self, command: &str, more: &[&str]) -> String {
        let output = self.command(command).args(more).output().unwrap();
        assert!(output.status.success(), "dev/{} {command}: {}", self.tool, String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    }

    fn command(&self, command: &str) -> Command {
        let mut tool = Command::new(repository().join("dev").join(self.tool));
        tool.args([command, "--run-dir", &self.dir.path().display().to_string()]);
        tool
    }

    /// The first variable that it is found by: the brokers' addresses, the store's URL.
    pub fn address(&self) -> String {
        let variables = self.run("env", &[]);
        variables.lines().next().unwrap().split_once('=').unwrap().1.to_owned()
    }

    /// Sends the only process a signal by its name without SIG.
    pub fn signal(&self, name: &str) {
        let pid = std::fs::read_to_string(self.dir.path().join(self.tool).join("pid")).unwrap();
        let status = Command::new("kill").args(["-s", name, pid.lines().next().unwrap()]).status().unwrap();
        assert!(status.success());
    }
}

impl Drop for Own {
    fn drop(&mut self) {
        let brokers: Vec<String> = (1..=self.brokers).map(|broker| broker.to_string()).collect();
        let _ = self.command("kill").args(brokers).output();
    }
}

/// The keys of every MinIO that dev/minio starts.
pub const MINIO_KEYS: (&str, &str) = ("sluice-test", "sluice-test-secret");
