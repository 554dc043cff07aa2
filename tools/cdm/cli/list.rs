// SPDX-License-Identifier: GPL-2.0

//! `cdm list`

use crate::{
    cgroup::{
        self,
        Share, //
    },
    node::{
        self,
        Node, //
    },
    print,
    Failure, //
};
use std::{
    env,
    fmt::Write, //
};

const HEAD: [&str; 8] = [
    "NODE", "STATE", "DRIVER", "DEVICE", "SIZE", "USED", "ALLOWED", "REFUSED",
];

const SHARES_HEAD: [&str; 6] = ["CGROUP", "NODE", "USED", "MIN", "LOW", "MAX"];

pub fn main(args: env::ArgsOs) -> Result<(), Failure> {
    let mut json = false;
    let mut cgroups = false;
    for arg in args {
        match arg.to_str() {
            Some("--json") => json = true,
            Some("--cgroups") => cgroups = true,
            _ => {
                return Err(Failure::usage(format!(
                    "list: {}: no such option",
                    arg.to_string_lossy()
                )))
            }
        }
    }

    let nodes = node::all()?;
    if cgroups {
        let shares = cgroup::shares()?;
        return print(&if json {
            shares_as_json(&shares)
        } else {
            shares_as_table(&shares)
        });
    }
    print(&if json {
        as_json(&nodes)
    } else {
        as_table(&nodes)
    })
}

/// Bytes as a person reads them, three digits at most.
fn size(kb: u64) -> String {
    let mut value = kb as f64;
    for unit in ["K", "M", "G"] {
        if value < 1000.0 {
            return if value < 10.0 && value.fract() != 0.0 {
                format!("{value:.1}{unit}")
            } else {
                format!("{value:.0}{unit}")
            };
        }
        value /= 1024.0;
    }
    format!("{value:.1}T")
}

fn or_dash(text: String) -> String {
    if text.is_empty() {
        "-".to_string()
    } else {
        text
    }
}

fn row(node: &Node) -> [String; 8] {
    let refused: Vec<String> = node
        .refused
        .iter()
        .filter(|(_, count)| *count != 0)
        .map(|(name, count)| format!("{name}:{count}"))
        .collect();

    [
        node.nid.to_string(),
        node.state.clone(),
        or_dash(node.driver.clone().unwrap_or_default()),
        or_dash(node.device.clone().unwrap_or_default()),
        size(node.size_kb),
        size(node.used_kb),
        or_dash(node.caps.join(",")),
        or_dash(refused.join(",")),
    ]
}

fn as_table(nodes: &[Node]) -> String {
    table(HEAD, nodes.iter().map(row))
}

fn shares_as_table(shares: &[Share]) -> String {
    let limit = |text: &str| match text.parse::<u64>() {
        Ok(bytes) => size(bytes / 1024),
        Err(_) => text.to_string(),
    };

    table(
        SHARES_HEAD,
        shares.iter().map(|share| {
            [
                share.group.clone(),
                share.nid.to_string(),
                size(share.used / 1024),
                limit(&share.min),
                limit(&share.low),
                limit(&share.max),
            ]
        }),
    )
}

fn table<const N: usize>(head: [&str; N], rows: impl Iterator<Item = [String; N]>) -> String {
    let rows: Vec<[String; N]> = std::iter::once(head.map(str::to_string))
        .chain(rows)
        .collect();
    let mut width = [0; N];
    for row in &rows {
        for (width, cell) in width.iter_mut().zip(row) {
            *width = (*width).max(cell.len());
        }
    }

    let mut out = String::new();
    for row in &rows {
        let line: Vec<String> = row
            .iter()
            .zip(width)
            .map(|(cell, width)| format!("{cell:width$}"))
            .collect();
        out.push_str(line.join("  ").trim_end());
        out.push('\n');
    }
    out
}

fn quoted(text: &str) -> String {
    let mut out = String::from("\"");
    for c in text.chars() {
        match c {
            '"' | '\\' => out.extend(['\\', c]),
            c if c < ' ' => {
                let _ = write!(out, "\\u{:04x}", c as u32);
            }
            c => out.push(c),
        }
    }
    out.push('"');
    out
}

fn as_json(nodes: &[Node]) -> String {
    let null_or = |text: &Option<String>| text.as_deref().map_or("null".to_string(), quoted);
    let nodes: Vec<String> = nodes
        .iter()
        .map(|node| {
            let caps: Vec<String> = node.caps.iter().map(|name| quoted(name)).collect();
            let refused: Vec<String> = node
                .refused
                .iter()
                .map(|(name, count)| format!("{}: {count}", quoted(name)))
                .collect();
            format!(
                "  {{\"node\": {}, \"state\": {}, \"driver\": {}, \"device\": {}, \
                 \"size\": {}, \"used\": {},\n   \"allowed\": [{}],\n   \"refused\": {{{}}}}}",
                node.nid,
                quoted(&node.state),
                null_or(&node.driver),
                null_or(&node.device),
                node.size_kb * 1024,
                node.used_kb * 1024,
                caps.join(", "),
                refused.join(", ")
            )
        })
        .collect();

    list_as_json(&nodes)
}

fn shares_as_json(shares: &[Share]) -> String {
    // No limit is null.
    let limit = |text: &str| match text.parse::<u64>() {
        Ok(bytes) => bytes.to_string(),
        Err(_) => "null".to_string(),
    };
    let shares: Vec<String> = shares
        .iter()
        .map(|share| {
            format!(
                "  {{\"cgroup\": {}, \"node\": {}, \"used\": {}, \"min\": {}, \"low\": {}, \
                 \"max\": {}}}",
                quoted(&share.group),
                share.nid,
                share.used,
                limit(&share.min),
                limit(&share.low),
                limit(&share.max)
            )
        })
        .collect();

    list_as_json(&shares)
}

fn list_as_json(items: &[String]) -> String {
    if items.is_empty() {
        return "[]\n".to_string();
    }
    format!("[\n{}\n]\n", items.join(",\n"))
}
