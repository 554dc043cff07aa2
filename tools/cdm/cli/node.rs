// SPDX-License-Identifier: GPL-2.0

//! What sysfs says about the nodes.

use crate::Failure;
use std::{
    fs,
    io,
    path::Path, //
};

const CDM: &str = "/sys/kernel/mm/cdm";
const NODES: &str = "/sys/devices/system/node";

/// A node that belongs to a device.
#[derive(Clone, PartialEq, Eq)]
pub struct Node {
    pub nid: u32,
    pub state: String,
    /// None if the driver has gone.
    pub driver: Option<String>,
    pub device: Option<String>,
    pub size_kb: u64,
    pub used_kb: u64,
    pub caps: Vec<String>,
    /// In the order of the capabilities.
    pub refused: Vec<(String, u64)>,
}

fn text(path: impl AsRef<Path>) -> io::Result<String> {
    fs::read_to_string(path).map(|text| text.trim_end().to_string())
}

fn link_name(path: &str) -> Option<String> {
    let target = fs::read_link(path).ok()?;
    Some(target.file_name()?.to_string_lossy().into_owned())
}

impl Node {
    fn read(nid: u32) -> io::Result<Self> {
        let dir = format!("{CDM}/node{nid}");
        let node = format!("{NODES}/node{nid}");
        let meminfo = text(format!("{node}/meminfo"))?;
        let field = |name: &str| {
            meminfo
                .lines()
                .filter_map(|line| line.split_once(name))
                .find_map(|(_, rest)| rest.split_whitespace().next()?.parse().ok())
                .unwrap_or(0)
        };

        Ok(Self {
            nid,
            state: text(format!("{dir}/state"))?,
            driver: link_name(&format!("{dir}/device/driver")),
            device: link_name(&format!("{dir}/device")),
            size_kb: field("MemTotal:"),
            used_kb: field("MemUsed:"),
            caps: text(format!("{node}/cdm_caps"))?
                .split_whitespace()
                .filter(|name| *name != "none")
                .map(str::to_string)
                .collect(),
            refused: text(format!("{node}/cdm_denied"))?
                .lines()
                .filter_map(|line| line.split_once(' '))
                .filter_map(|(name, count)| Some((name.to_string(), count.parse().ok()?)))
                .collect(),
        })
    }
}

/// All nodes that there are now, by number.
pub fn all() -> Result<Vec<Node>, Failure> {
    let dir = fs::read_dir(CDM).map_err(|error| match error.kind() {
        io::ErrorKind::NotFound => Failure::new(format!(
            "this kernel has no coherent device memory (no {CDM})"
        )),
        _ => Failure::io(CDM, &error),
    })?;

    let mut nids: Vec<u32> = dir
        .filter_map(|entry| {
            let name = entry.ok()?.file_name();
            name.to_str()?.strip_prefix("node")?.parse().ok()
        })
        .collect();
    nids.sort_unstable();

    let mut nodes = Vec::new();
    for nid in nids {
        match Node::read(nid) {
            Ok(node) => nodes.push(node),
            // It is coming, or has gone meanwhile: then a part of it is missing.
            Err(error)
                if error.kind() == io::ErrorKind::NotFound
                    || error.raw_os_error() == Some(ENODEV) => {}
            Err(error) => return Err(Failure::io(format!("node {nid}"), &error)),
        }
    }
    Ok(nodes)
}

const ENODEV: i32 = 19;

/// Is there a node of this number, of whatever kind?
pub fn exists(nid: u32) -> bool {
    Path::new(&format!("{NODES}/node{nid}")).exists()
}

/// A file of a node in sysfs.
pub fn file(nid: &str, name: &str) -> String {
    format!("{NODES}/node{nid}/{name}")
}
