// SPDX-License-Identifier: GPL-2.0

//! `cdm watch`

use crate::{
    node::{
        self,
        Node, //
    },
    print,
    Failure, //
};
use std::{
    env,
    fmt::Write,
    thread,
    time::Duration, //
};

pub fn main(mut args: env::ArgsOs) -> Result<(), Failure> {
    let mut interval = 1.0;
    let mut times = None;
    while let Some(arg) = args.next() {
        let option = arg.to_string_lossy().into_owned();
        let value = args.next().and_then(|value| value.into_string().ok());
        match (option.as_str(), value) {
            ("-i", Some(value)) => {
                interval = value
                    .parse()
                    .ok()
                    .filter(|seconds| (0.01..=86400.0).contains(seconds))
                    .ok_or_else(|| Failure::usage(format!("watch: -i {value}: no interval")))?;
            }
            ("-n", Some(value)) => {
                times = Some(
                    value
                        .parse::<u64>()
                        .map_err(|_| Failure::usage(format!("watch: -n {value}: not a number")))?,
                );
            }
            ("-i" | "-n", None) => {
                return Err(Failure::usage(format!("watch: {option} needs a number")))
            }
            _ => return Err(Failure::usage(format!("watch: {option}: no such option"))),
        }
    }

    let mut before = node::all()?;
    let mut first = String::new();
    for node in &before {
        let _ = writeln!(first, "node {}: {}", node.nid, node.state);
    }
    print(&first)?;

    while times != Some(0) {
        thread::sleep(Duration::from_secs_f64(interval));
        let now = node::all()?;
        print(&difference(&before, &now))?;
        before = now;
        times = times.map(|times| times - 1);
    }
    Ok(())
}

/// One line for each thing that has changed.
fn difference(before: &[Node], now: &[Node]) -> String {
    let mut out = String::new();
    let find = |nodes: &[Node], nid| nodes.iter().find(|node| node.nid == nid).cloned();

    for old in before {
        if find(now, old.nid).is_none() {
            let _ = writeln!(out, "node {}: gone", old.nid);
        }
    }
    for node in now {
        let old = find(before, node.nid);
        // Counts only grow: if one is less, another node has taken the number.
        let old = old.filter(|old| {
            old.refused
                .iter()
                .zip(&node.refused)
                .all(|((_, old), (_, new))| old <= new)
        });
        let Some(old) = old else {
            let caps = if node.caps.is_empty() {
                "none".to_string()
            } else {
                node.caps.join(" ")
            };
            let _ = writeln!(out, "node {}: new, allowed: {caps}", node.nid);
            continue;
        };
        if old.state != node.state {
            let _ = writeln!(out, "node {}: {}", node.nid, node.state);
        }
        for ((name, old), (_, new)) in old.refused.iter().zip(&node.refused) {
            if new > old {
                let _ = writeln!(
                    out,
                    "node {}: refused {name} +{} ({new})",
                    node.nid,
                    new - old
                );
            }
        }
    }
    out
}
