//! The `sluice` program.

use std::os::unix::process::CommandExt as _;
use std::process::{Command, ExitCode};

/// glibc keeps a heap for each thread by default; buffers that one thread fills and another frees then pile up in all of
/// them (measured: 306 MB instead of 233 MB at the peak). It reads the setting only when a process starts.
const ONE_HEAP: (&str, &str) = ("MALLOC_ARENA_MAX", "1");

fn main() -> ExitCode {
    start_again_with_one_heap();
    sluice::cli::main()
}

/// Replaces the process by itself, under the same pid, with the setting; whoever has set it otherwise is left alone. Only for
/// `run`: the other commands are short.
fn start_again_with_one_heap() {
    let mut arguments = std::env::args_os();
    let name = arguments.next();
    let arguments: Vec<_> = arguments.collect();
    if std::env::var_os(ONE_HEAP.0).is_some() || !arguments.iter().any(|argument| argument == "run") {
        return;
    }
    let mut again = Command::new("/proc/self/exe");
    if let Some(name) = name {
        again.arg0(name);
    }
    // Where this does not work, more memory is all that is lost.
    let _failed = again.args(arguments).env(ONE_HEAP.0, ONE_HEAP.1).exec();
}
