// SPDX-License-Identifier: GPL-2.0

//! The file of what `cdm apply` attaches.

use crate::dax::Place;
use std::fmt;

/// Where it is.
pub const FILE: &str = "/etc/cdm.conf";

/// What a node is to be.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Wish {
    pub caps: String,
    /// `None` leaves it to the kernel.
    pub nid: Option<String>,
    /// `None` leaves it as it is.
    pub access: Option<String>,
}

/// A line that says something.
#[derive(Debug, PartialEq, Eq)]
pub struct Entry {
    pub line: usize,
    /// What is written first, a device.
    pub device: String,
    /// What is said of it, or what is wrong with that.
    pub wish: Result<Wish, String>,
}

/// Why a value is not one.
fn judge(key: &str, value: &str) -> Result<(), String> {
    let good = match key {
        "caps" => value.split(',').all(|name| {
            !name.is_empty() && name.bytes().all(|c| c.is_ascii_lowercase() || c == b'_')
        }),
        "nid" => {
            value == "auto"
                || (value.bytes().all(|c| c.is_ascii_digit()) && value.parse::<u16>().is_ok())
        }
        "access" => matches!(value, "all" | "listed"),
        _ => return Err(format!("{key}: not one of caps, nid, access")),
    };
    if good {
        return Ok(());
    }
    Err(format!(
        "{key}={value}: {}",
        match key {
            "caps" => "not names that are separated by commas, nor all, nor none",
            "nid" => "neither a node's number nor auto",
            _ => "neither all nor listed",
        }
    ))
}

/// What a line's words after the device say.
fn wish<'a>(words: impl Iterator<Item = &'a str>) -> Result<Wish, String> {
    let (mut caps, mut nid, mut access) = (None, None, None);

    for word in words {
        let (key, value) = word
            .split_once('=')
            .ok_or_else(|| format!("{word}: not of the form NAME=VALUE"))?;
        judge(key, value)?;
        let place = match key {
            "caps" => &mut caps,
            "nid" => &mut nid,
            _ => &mut access,
        };
        if place.replace(value.to_string()).is_some() {
            return Err(format!("{key}= twice"));
        }
    }
    Ok(Wish {
        caps: caps.ok_or("what may the kernel do there? caps=NAMES, or caps=none")?,
        nid: nid.filter(|nid| nid != "auto"),
        access,
    })
}

/// The lines of a file that are not empty and no comments.
pub fn parse(text: &str) -> Vec<Entry> {
    let mut entries: Vec<Entry> = Vec::new();

    for (index, line) in text.lines().enumerate() {
        let mut words = line
            .split_whitespace()
            .take_while(|word| !word.starts_with('#'));
        let Some(device) = words.next() else {
            continue;
        };
        let place = Place::parse(device);
        let twice = entries
            .iter()
            .find(|entry| place.is_some() && Place::parse(&entry.device) == place);
        let wish = match (&place, twice) {
            (None, _) => Err(format!(
                "{device}: neither daxX.Y, nor a region of CXL, nor an address in hexadecimal"
            )),
            (_, Some(first)) => Err(format!("{device}: line {} has it already", first.line)),
            _ => wish(words),
        };
        entries.push(Entry {
            line: index + 1,
            device: device.to_string(),
            wish,
        });
    }
    entries
}

/// As a line of the file has it.
impl fmt::Display for Wish {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "caps={}", self.caps)?;
        if let Some(nid) = &self.nid {
            write!(f, " nid={nid}")?;
        }
        if let Some(access) = &self.access {
            write!(f, " access={access}")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn one(text: &str) -> Result<Wish, String> {
        let mut entries = parse(text);
        assert_eq!(entries.len(), 1, "{text}");
        entries.remove(0).wish
    }

    /// A line is refused, for this reason.
    fn bad(text: &str, why: &str) {
        let wish = one(text);
        assert!(
            matches!(&wish, Err(error) if error.contains(why)),
            "{text}: {wish:?}"
        );
    }

    #[test]
    fn nothing_is_nothing() {
        assert!(parse("").is_empty());
        assert!(parse("\n  \t \n# dax0.0 caps=none\n   # more\r\n").is_empty());
    }

    #[test]
    fn lines_are_counted_from_one() {
        let entries = parse("# first\n\ndax0.0 caps=none\n#\ndax1.0 caps=all\n");
        let lines: Vec<_> = entries.iter().map(|entry| entry.line).collect();
        assert_eq!(lines, [3, 5]);
        assert!(entries.iter().all(|entry| entry.wish.is_ok()));
    }

    #[test]
    fn all_that_can_be_said() -> Result<(), String> {
        let wish = one("  dax0.0\tcaps=migrate,numa_balancing nid=3 access=listed # why\r\n")?;
        assert_eq!(wish.caps, "migrate,numa_balancing");
        assert_eq!(wish.nid.as_deref(), Some("3"));
        assert_eq!(wish.access.as_deref(), Some("listed"));
        assert_eq!(
            wish.to_string(),
            "caps=migrate,numa_balancing nid=3 access=listed"
        );
        // The order is no matter, and what it prints is what it reads.
        assert_eq!(one(&format!("dax0.0 {wish}")), Ok(wish));
        Ok(())
    }

    #[test]
    fn the_kernel_chooses() -> Result<(), String> {
        assert_eq!(one("dax0.0 nid=auto caps=none")?.nid, None);
        assert_eq!(one("dax0.0 caps=none")?.nid, None);
        Ok(())
    }

    #[test]
    fn every_kind_of_device() {
        for device in ["dax0.0", "dax12.34", "region0", "0x50000000"] {
            assert!(one(&format!("{device} caps=none")).is_ok(), "{device}");
        }
        for device in [
            "dax",
            "dax0",
            "dax.0",
            "dax0.",
            "dax0.0/..",
            "daxa.b",
            "region",
            "region-1",
            "mem0",
            "0x",
            "0xfoo",
            "50000000",
            "/dev/dax0.0",
            "caps=none",
            "d\u{e4}x0.0",
        ] {
            bad(&format!("{device} caps=none"), "neither daxX.Y");
        }
    }

    #[test]
    fn what_is_wrong() {
        bad("dax0.0", "what may the kernel do there");
        bad("dax0.0 nid=1", "what may the kernel do there");
        bad("dax0.0 caps", "caps: not of the form");
        bad("dax0.0 caps=", "caps=: not names");
        bad("dax0.0 caps=migrate,", "caps=migrate,: not names");
        bad("dax0.0 caps=migrate, thp", "not names");
        bad("dax0.0 caps=Migrate", "not names");
        bad("dax0.0 caps=none caps=all", "caps= twice");
        bad("dax0.0 caps=none nid=x", "nid=x: neither");
        bad("dax0.0 caps=none nid=-1", "nid=-1: neither");
        bad("dax0.0 caps=none nid=+1", "nid=+1: neither");
        bad("dax0.0 caps=none access=some", "access=some: neither");
        bad("dax0.0 caps=none colour=red", "colour: not one of");
    }

    #[test]
    fn a_device_has_one_line() {
        let entries = parse(
            "dax0.0 caps=none\n0x50000000 caps=none\ndax0.0 caps=all\n0x050000000 caps=all\n",
        );
        assert!(entries[0].wish.is_ok() && entries[1].wish.is_ok());
        assert_eq!(
            entries[2].wish,
            Err("dax0.0: line 1 has it already".to_string())
        );
        assert_eq!(
            entries[3].wish,
            Err("0x050000000: line 2 has it already".to_string())
        );
    }

    #[test]
    fn a_bad_line_does_not_hide_the_next() {
        let entries = parse("dax0.0 caps=\ndax1.0 caps=none\n");
        assert!(entries[0].wish.is_err() && entries[1].wish.is_ok());
    }
}
