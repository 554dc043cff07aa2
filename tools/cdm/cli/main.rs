// SPDX-License-Identifier: GPL-2.0

//! `cdm`: shows coherent device memory, makes it of dax devices, and runs programs on it.

mod cgroup;
mod conf;
mod dax;
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
  cdm list --cgroups [--json]        what cgroups have of them, and may have
  cdm watch [-i SECONDS] [-n TIMES]  what is refused, and nodes that come and go
  cdm run -m NODES [-p] [--max SIZE] [--] PROGRAM [ARGUMENT...]
                                     run a program with its memory on nodes
  cdm attach DEVICE --caps NAMES [--nid NODE] [--access WHO]
                                     make a node of a dax device, such as dax0.0
  cdm apply [-f FILE] [-n] [DEVICE...]
                                     attach what /etc/cdm.conf names
  cdm detach DEVICE [--to DRIVER]    take the node away
  cdm --help

Options:
  --json         for programs
  -i SECONDS     how often to look, by default 1
  -n TIMES       stop after so many looks
  -m NODES       node numbers, separated by commas
  -p             prefer the nodes: other memory where they are full
  --max SIZE     so much of each node at most, in bytes or as 512M or 2G: in a
                 cgroup of its own
  --caps NAMES   what the kernel may do there, separated by commas, or all, or none
  --nid NODE     which node, instead of the one that the firmware has for the memory
  --access WHO   who may name the node: all, or those whose cpuset lists it: listed
  -f FILE        another file than /etc/cdm.conf
  -n             only say what would be done
  --to DRIVER    what has the device then: device_dax, kmem; by default nothing
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

    /// It has consequences.
    pub fn and(&self, what: &str) -> Self {
        Self::with_status(self.status, format!("{}; {what}", self.message))
    }

    /// What there is to say.
    pub fn text(&self) -> &str {
        &self.message
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

fn dispatch(mut args: env::ArgsOs) -> Result<ExitCode, Failure> {
    args.next();
    let Some(command) = args.next() else {
        return Err(Failure::usage("no command"));
    };
    match command.to_str() {
        Some("list") => list::main(args),
        Some("watch") => watch::main(args),
        Some("run") => return run::main(args),
        Some("attach") => dax::attach(args),
        Some("apply") => dax::apply(args),
        Some("detach") => dax::detach(args),
        Some("help" | "--help" | "-h") => print(HELP),
        _ => Err(Failure::usage(format!(
            "{}: no such command",
            command.to_string_lossy()
        ))),
    }?;
    Ok(ExitCode::SUCCESS)
}

fn main() -> ExitCode {
    match dispatch(env::args_os()) {
        Ok(status) => status,
        Err(failure) => {
            eprintln!("cdm: {}", failure.message);
            if failure.status == 2 {
                eprintln!("Try 'cdm --help'.");
            }
            ExitCode::from(failure.status)
        }
    }
}
