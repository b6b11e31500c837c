//! What Linux tells about this process, under the names that Prometheus clients use.
//!
//! Owns: reading /proc. Does not own: the names. Elsewhere than on Linux there is nothing to read, and nothing is shown.

use super::list::{PROCESS_CPU, PROCESS_MAX_FDS, PROCESS_OPEN_FDS, PROCESS_RSS, PROCESS_START};

/// The unit of times in /proc, the same on every architecture that Linux shows to programs (USER_HZ).
const TICKS_PER_SECOND: f64 = 100.0;

/// Name and value of what could be read.
pub(super) fn read() -> Vec<(&'static str, f64)> {
    let text = |path: &str| std::fs::read_to_string(path).unwrap_or_default();
    let mut found = Vec::new();
    let (stat, machine) = (text("/proc/self/stat"), text("/proc/stat"));
    if let Some((cpu_secs, started_secs)) = times(&stat) {
        found.push((PROCESS_CPU, cpu_secs));
        if let Some(booted_secs) = field(&machine, "btime") {
            found.push((PROCESS_START, booted_secs + started_secs));
        }
    }
    if let Some(kib) = field(&text("/proc/self/status"), "VmRSS:") {
        found.push((PROCESS_RSS, kib * 1024.0));
    }
    if let Ok(open) = std::fs::read_dir("/proc/self/fd") {
        // The one that lists them is among them.
        found.push((PROCESS_OPEN_FDS, open.count().saturating_sub(1) as f64));
    }
    if let Some(most) = field(&text("/proc/self/limits"), "Max open files") {
        found.push((PROCESS_MAX_FDS, most));
    }
    found
}

/// The first number of the line that begins with `name`.
fn field(text: &str, name: &str) -> Option<f64> {
    text.lines().find_map(|line| line.strip_prefix(name)?.split_whitespace().next()?.parse().ok())
}

/// Processor time, and the start since the machine's, both in seconds: fields 14, 15 and 22 of proc(5)'s stat.
fn times(stat: &str) -> Option<(f64, f64)> {
    // The second field is the program's name, which may hold spaces and brackets.
    let (_, after_name) = stat.rsplit_once(')')?;
    let fields: Vec<&str> = after_name.split_whitespace().collect();
    let ticks = |number: usize| fields.get(number - 3)?.parse::<f64>().ok();
    Some(((ticks(14)? + ticks(15)?) / TICKS_PER_SECOND, ticks(22)? / TICKS_PER_SECOND))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_name_with_brackets_moves_no_field() {
        let stat = "7 (a) b) R 1 7 7 0 -1 4194304 5 0 0 0 250 50 0 0 20 0 8 0 12345 1 2";
        assert_eq!(times(stat), Some((3.0, 123.45)));
        assert_eq!(times("7 (a) R 1"), None);
        assert_eq!(times(""), None);
    }

    #[test]
    fn a_field_without_a_number_is_not_shown() {
        assert_eq!(
            field("Max open files            1024                 524288   files", "Max open files"),
            Some(1024.0)
        );
        assert_eq!(field("Max open files            unlimited            unlimited", "Max open files"), None);
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn this_process_is_read() {
        let names: Vec<&str> = read().into_iter().map(|(name, _)| name).collect();
        assert_eq!(names, [PROCESS_CPU, PROCESS_START, PROCESS_RSS, PROCESS_OPEN_FDS, PROCESS_MAX_FDS]);
        assert!(read().into_iter().all(|(_, value)| value.is_finite() && value >= 0.0));
    }
}
