// SPDX-License-Identifier: GPL-2.0

//! `cdm run`

use crate::{
    cgroup::Limited,
    node,
    reason,
    Failure, //
};
use std::{
    env,
    ffi::{
        c_int,
        c_long,
        c_ulong, //
    },
    io,
    os::unix::process::{
        CommandExt,
        ExitStatusExt, //
    },
    process::{
        Command,
        ExitCode, //
    }, //
};

const MPOL_BIND: c_int = 2;
const MPOL_PREFERRED_MANY: c_int = 5;

#[cfg(target_arch = "x86_64")]
const SYS_SET_MEMPOLICY: c_long = 238;
#[cfg(target_arch = "aarch64")]
const SYS_SET_MEMPOLICY: c_long = 237;

/// As many nodes as a kernel can be built for.
const MAX_NODES: usize = 1024;
const BITS: usize = c_ulong::BITS as usize;

extern "C" {
    fn syscall(number: c_long, ...) -> c_long;
    fn signal(number: c_int, handler: usize) -> usize;
}

const SIGINT: c_int = 2;
const SIGQUIT: c_int = 3;
const SIG_DFL: usize = 0;
const SIG_IGN: usize = 1;

/// Sets the policy of this task, which a program that it executes inherits.
fn set_mempolicy(mode: c_int, nodes: &[u32]) -> io::Result<()> {
    let mut mask = [0 as c_ulong; MAX_NODES / BITS];
    for nid in nodes {
        let nid = *nid as usize;
        mask[nid / BITS] |= 1 << (nid % BITS);
    }
    // The kernel leaves the last bit out.
    let bits = MAX_NODES as c_ulong + 1;
    // SAFETY: The kernel reads this many bits of the mask, which has them, and keeps no pointer.
    match unsafe { syscall(SYS_SET_MEMPOLICY, c_long::from(mode), mask.as_ptr(), bits) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

/// The numbers in a list, if each of them is a node that a program can name.
fn nodes(list: &str) -> Result<Vec<u32>, Failure> {
    let known = node::all()?;
    let mut nids = Vec::new();

    for word in list.split(',') {
        let nid: u32 = word
            .parse()
            .map_err(|_| Failure::usage(format!("run: -m {list}: \"{word}\" is no node number")))?;
        let Some(node) = known.iter().find(|node| node.nid == nid) else {
            if !node::exists(nid) {
                return Err(Failure::new(format!("there is no node {nid}")));
            }
            let names: Vec<String> = known.iter().map(|node| node.nid.to_string()).collect();
            return Err(Failure::new(format!(
                "node {nid} is ordinary memory; coherent device memory is {}",
                if names.is_empty() {
                    "on no node".to_string()
                } else {
                    format!("on {}", names.join(","))
                }
            )));
        };
        if node.state != "online" {
            return Err(Failure::new(format!("node {nid} is {}", node.state)));
        }
        nids.push(nid);
    }
    Ok(nids)
}

/// What the terminal sends is for the program. This waits until that is done with it.
fn leave_signals_to_it(leave: bool) {
    let handler = if leave { SIG_IGN } else { SIG_DFL };
    for number in [SIGINT, SIGQUIT] {
        // SAFETY: Neither is a function of ours.
        unsafe { signal(number, handler) };
    }
}

/// Runs a program in a cgroup of its own, and returns what it returned.
fn run_limited(
    mut command: Command,
    nids: &[u32],
    max: &str,
) -> io::Result<Result<ExitCode, Failure>> {
    let limited = match Limited::enter(nids, max) {
        Ok(limited) => limited,
        Err(failure) => return Ok(Err(failure)),
    };
    let mut child = command.spawn()?;

    leave_signals_to_it(true);
    let status = child.wait();
    drop(limited);
    leave_signals_to_it(false);
    let status = status?;
    // As a shell has it.
    let code = status.code().or(status.signal().map(|signal| 128 + signal));
    Ok(Ok(ExitCode::from(
        code.and_then(|code| u8::try_from(code).ok()).unwrap_or(1),
    )))
}

pub fn main(mut args: env::ArgsOs) -> Result<ExitCode, Failure> {
    let mut list = None;
    let mut max = None;
    let mut mode = MPOL_BIND;

    let program = loop {
        let Some(arg) = args.next() else {
            return Err(Failure::usage("run: no program"));
        };
        match arg.to_str() {
            Some("-m") => {
                let value = args.next().and_then(|value| value.into_string().ok());
                list = Some(value.ok_or_else(|| Failure::usage("run: -m needs node numbers"))?);
            }
            Some("-p") => mode = MPOL_PREFERRED_MANY,
            Some("--max") => {
                let value = args.next().and_then(|value| value.into_string().ok());
                max = Some(value.ok_or_else(|| Failure::usage("run: --max needs a size"))?);
            }
            Some("--") => {
                break args
                    .next()
                    .ok_or_else(|| Failure::usage("run: no program"))?;
            }
            Some(option) if option.starts_with('-') => {
                return Err(Failure::usage(format!("run: {option}: no such option")));
            }
            _ => break arg,
        }
    };
    let list = list.ok_or_else(|| Failure::usage("run: on which node? -m NODES"))?;
    let nids = nodes(&list)?;

    set_mempolicy(mode, &nids).map_err(|error| match error.kind() {
        // It was there a moment ago.
        io::ErrorKind::InvalidInput => Failure::new(format!("node {list} cannot be named now")),
        _ => Failure::io(format!("node {list}"), &error),
    })?;

    let mut command = Command::new(&program);
    command.args(args);
    let error = match max {
        None => command.exec(),
        Some(max) => match run_limited(command, &nids, &max) {
            Ok(status) => return status,
            Err(error) => error,
        },
    };
    let program = program.to_string_lossy();
    Err(match error.kind() {
        io::ErrorKind::NotFound => Failure::with_status(127, format!("{program}: not found")),
        _ => Failure::with_status(126, format!("{program}: {}", reason(&error))),
    })
}
