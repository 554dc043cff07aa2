// SPDX-License-Identifier: GPL-2.0

//! `cdm`: shows coherent device memory, and runs programs on it.

mod list;
mod node;
mod run;
mod watch;

use std::{
    env,
    fmt,
    io,
    process::ExitCode, //
};

const HELP: &str = "\
Coherent device memory: nodes that belong to a device.

Usage:
  cdm list [--json]                  the nodes: whose they are, what they allow,
                                     and how often they refused something
  cdm watch [-i SECONDS] [-n TIMES]  what is refused, and nodes that come and go
  cdm run -m NODES [-p] [--] PROGRAM [ARGUMENT...]
                                     run a program with its memory on nodes
  cdm --help

Options:
  --json         for programs
  -i SECONDS     how often to look, by default 1
  -n TIMES       stop after so many looks
  -m NODES       node numbers, separated by commas
  -p             prefer the nodes: other memory where they are full
";

/// Why a command fails, and with which status.
pub struct Failure {
    status: u8,
    message: String,
}

impl Failure {
    /// The command was not understood.
    pub fn usage(message: impl Into<String>) -> Self {
        Self::with_status(2, message)
    }

    /// It was, and cannot be done.
    pub fn new(message: impl Into<String>) -> Self {
        Self::with_status(1, message)
    }

    /// As `new`, with a status that means something.
    pub fn with_status(status: u8, message: impl Into<String>) -> Self {
        Self {
            status,
            message: message.into(),
        }
    }

    /// What could not be done, and why.
    pub fn io(what: impl fmt::Display, error: &io::Error) -> Self {
        Self::new(format!("{what}: {}", reason(error)))
    }
}

/// An error of the system in its words, without the number.
pub fn reason(error: &io::Error) -> String {
    let text = error.to_string();
    match text.find(" (os error") {
        Some(end) => text[..end].to_string(),
        None => text,
    }
}

/// Writes to stdout. Who closes it has seen enough.
pub fn print(text: &str) -> Result<(), Failure> {
    use io::Write;

    let mut out = io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => std::process::exit(0),
        Err(error) => Err(Failure::io("stdout", &error)),
        Ok(()) => Ok(()),
    }
}

fn dispatch(mut args: env::ArgsOs) -> Result<(), Failure> {
    args.next();
    let Some(command) = args.next() else {
        return Err(Failure::usage("no command"));
    };
    match command.to_str() {
        Some("list") => list::main(args),
        Some("watch") => watch::main(args),
        Some("run") => run::main(args),
        Some("help" | "--help" | "-h") => print(HELP),
        _ => Err(Failure::usage(format!(
            "{}: no such command",
            command.to_string_lossy()
        ))),
    }
}

fn main() -> ExitCode {
    match dispatch(env::args_os()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            eprintln!("cdm: {}", failure.message);
            if failure.status == 2 {
                eprintln!("Try 'cdm --help'.");
            }
            ExitCode::from(failure.status)
        }
    }
}
