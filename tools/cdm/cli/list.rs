// SPDX-License-Identifier: GPL-2.0

//! `cdm list`

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
    fmt::Write, //
};

const HEAD: [&str; 8] = [
    "NODE", "STATE", "DRIVER", "DEVICE", "SIZE", "USED", "ALLOWED", "REFUSED",
];

pub fn main(args: env::ArgsOs) -> Result<(), Failure> {
    let mut json = false;
    for arg in args {
        match arg.to_str() {
            Some("--json") => json = true,
            _ => {
                return Err(Failure::usage(format!(
                    "list: {}: no such option",
                    arg.to_string_lossy()
                )))
            }
        }
    }

    let nodes = node::all()?;
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
    let rows: Vec<[String; 8]> = std::iter::once(HEAD.map(str::to_string))
        .chain(nodes.iter().map(row))
        .collect();
    let mut width = [0; 8];
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

    if nodes.is_empty() {
        return "[]\n".to_string();
    }
    format!("[\n{}\n]\n", nodes.join(",\n"))
}
