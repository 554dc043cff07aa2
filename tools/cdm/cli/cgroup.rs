// SPDX-License-Identifier: GPL-2.0

//! What cgroups have of the nodes, and may have: the controller dmem of cgroup v2.

use crate::Failure;
use std::{
    fs,
    io,
    path::{
        Path,
        PathBuf, //
    },
    process, //
};

/// A node in the files of the controller.
fn region(nid: u32) -> String {
    format!("cdm/node{nid}")
}

/// Where cgroup v2 is mounted.
fn top() -> Result<PathBuf, Failure> {
    let path = "/proc/self/mountinfo";
    let text = fs::read_to_string(path).map_err(|error| Failure::io(path, &error))?;

    text.lines()
        .filter_map(|line| line.split_once(" - "))
        .filter(|(_, kind)| kind.starts_with("cgroup2 "))
        .find_map(|(mount, _)| mount.split(' ').nth(4))
        .map(PathBuf::from)
        .ok_or_else(|| Failure::new("cgroup v2 is not mounted"))
}

/// What a file says of each node: its number, and bytes, or the word for no limit.
fn values(group: &Path, name: &str) -> io::Result<Vec<(u32, String)>> {
    let text = fs::read_to_string(group.join(name))?;

    Ok(text
        .lines()
        .filter_map(|line| line.split_once(' '))
        .filter_map(|(region, value)| {
            let nid = region.strip_prefix("cdm/node")?.parse().ok()?;
            Some((nid, value.trim().to_string()))
        })
        .collect())
}

/// One cgroup and one node.
pub struct Share {
    /// Below the mount point, from "/".
    pub group: String,
    pub nid: u32,
    /// Bytes.
    pub used: u64,
    pub min: String,
    pub low: String,
    pub max: String,
}

fn add_shares(top: &Path, group: &Path, shares: &mut Vec<Share>) -> io::Result<()> {
    let of = |values: &[(u32, String)], nid| {
        values
            .iter()
            .find(|(other, _)| *other == nid)
            .map(|(_, value)| value.clone())
    };
    let (min, low, max) = (
        values(group, "dmem.min").unwrap_or_default(),
        values(group, "dmem.low").unwrap_or_default(),
        values(group, "dmem.max").unwrap_or_default(),
    );
    for (nid, used) in values(group, "dmem.current").unwrap_or_default() {
        let share = Share {
            group: format!("/{}", group.strip_prefix(top).unwrap_or(group).display()),
            nid,
            used: used.parse().unwrap_or(0),
            min: of(&min, nid).unwrap_or_else(|| "0".to_string()),
            low: of(&low, nid).unwrap_or_else(|| "0".to_string()),
            max: of(&max, nid).unwrap_or_else(|| "max".to_string()),
        };
        // What is neither used nor limited is of no interest.
        if share.used != 0 || share.min != "0" || share.low != "0" || share.max != "max" {
            shares.push(share);
        }
    }

    let mut below: Vec<PathBuf> = match fs::read_dir(group) {
        Ok(entries) => entries
            .filter_map(Result::ok)
            .filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()))
            .map(|entry| entry.path())
            .collect(),
        // It went meanwhile.
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error),
    };
    below.sort();
    below
        .iter()
        .try_for_each(|group| add_shares(top, group, shares))
}

/// All cgroups that have something of a node, or limits: each after the one above it.
pub fn shares() -> Result<Vec<Share>, Failure> {
    let top = top()?;
    if !top.join("dmem.capacity").exists() {
        return Err(Failure::new(
            "this kernel has no cgroup controller dmem (CONFIG_CGROUP_DMEM)",
        ));
    }

    let mut shares = Vec::new();
    add_shares(&top, &top, &mut shares).map_err(|error| Failure::io(top.display(), &error))?;
    Ok(shares)
}

/// A cgroup for one program, in which this process is until it is dropped.
pub struct Limited {
    group: PathBuf,
    home: PathBuf,
    /// It is below `home`, and not beside it.
    inside: bool,
}

fn write(file: PathBuf, text: &str) -> Result<(), Failure> {
    fs::write(&file, text).map_err(|error| Failure::io(file.display(), &error))
}

/// Lets the cgroups below one have limits of their own.
fn hand_down(group: &Path) -> Result<(), Failure> {
    let control = group.join("cgroup.subtree_control");

    // Its own pages make room if memory is there, too. That may not be for us to say.
    let _ = fs::write(&control, "+memory");
    write(control, "+dmem")
}

/// Is there no process in a cgroup, but perhaps this one?
fn has_no_others(group: &Path) -> bool {
    let own = process::id().to_string();

    fs::read_to_string(group.join("cgroup.procs"))
        .is_ok_and(|text| text.lines().all(|pid| pid == own))
}

impl Limited {
    /// Makes it with so much of each node at most: below the one that this process is
    /// in, if it has that for itself (what limits or ends a unit of systemd then does so
    /// to the program), else beside it.
    pub fn enter(nids: &[u32], max: &str) -> Result<Self, Failure> {
        let path = "/proc/self/cgroup";
        let text = fs::read_to_string(path).map_err(|error| Failure::io(path, &error))?;
        let own = text
            .lines()
            .find_map(|line| line.strip_prefix("0::/"))
            .ok_or_else(|| Failure::new("cgroup v2 is not mounted"))?;
        let home = top()?.join(own);
        // Below the root there may be processes in a cgroup or others below it, not both.
        let above = match home.parent() {
            Some(above) if !own.is_empty() => above.to_path_buf(),
            _ => home.clone(),
        };
        hand_down(&above)?;
        let inside = above != home && has_no_others(&home);
        let parent = if inside { &home } else { &above };

        let group = parent.join(format!("cdm-run-{}", process::id()));
        fs::create_dir(&group).map_err(|error| Failure::io(group.display(), &error))?;
        // From here on it is undone.
        let limited = Self {
            group,
            home,
            inside,
        };
        write(limited.group.join("cgroup.procs"), "0")?;
        if inside {
            hand_down(&limited.home)?;
        }
        for nid in nids {
            let line = format!("{} {max}", region(*nid));
            write(limited.group.join("dmem.max"), &line)
                .map_err(|failure| failure.and(&format!("as \"{line}\"")))?;
        }
        Ok(limited)
    }
}

impl Drop for Limited {
    fn drop(&mut self) {
        if self.inside {
            // What the program left behind keeps it, and the limit.
            if !has_no_others(&self.group) {
                return;
            }
            let control = self.home.join("cgroup.subtree_control");
            let _ = fs::write(&control, "-dmem");
            let _ = fs::write(&control, "-memory");
        }
        let _ = fs::write(self.home.join("cgroup.procs"), "0");
        let _ = fs::remove_dir(&self.group);
    }
}
