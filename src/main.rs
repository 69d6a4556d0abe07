//! The command line: `engram-restore --help`.

#[cfg(not(target_os = "linux"))]
compile_error!("engram-restore is built for Linux: it relies on its locks, leases and open-file lists");

mod cli;

fn main() -> std::process::ExitCode {
    cli::main()
}
