// SPDX-License-Identifier: GPL-2.0

//! Why a node stays, who holds its pages and who wanted it to go: what one line in the log says.

use crate::lifecycle::By;
use kernel::{
    bindings,
    fmt,
    page::PAGE_SIZE,
    prelude::*, //
};

/// Why a node stays.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Obstacle {
    /// Somebody else changes the machine's memory and does not come to an end.
    HotplugBusy,
    /// So many pages would have to move, and for so many there is room. Nothing has moved.
    NoRoom(usize, usize),
    /// Some pages are still there after so many milliseconds.
    TimeUp(u32),
    /// The memory has gone, and what was in it has not.
    NotErased(Error),
}

impl Obstacle {
    /// What `cdm_memory_remove()` has met.
    pub(crate) fn from_raw(raw: &bindings::cdm_obstacle) -> Self {
        match raw.what {
            bindings::CDM_STAYS_HOTPLUG => Self::HotplugBusy,
            bindings::CDM_STAYS_ROOM => Self::NoRoom(raw.need, raw.room),
            _ => Self::TimeUp(raw.timeout_ms),
        }
    }

    /// The one errno of this obstacle.
    pub(crate) fn errno(&self) -> Error {
        match self {
            Self::NoRoom(..) => ENOMEM,
            Self::HotplugBusy | Self::TimeUp(_) | Self::NotErased(_) => EBUSY,
        }
    }
}

const fn kib(pages: usize) -> usize {
    pages * (PAGE_SIZE / 1024)
}

impl fmt::Display for Obstacle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::HotplugBusy => f.write_str("memory hotplug is busy"),
            Self::NoRoom(need, room) => write!(
                f,
                "{} kB are in use, and ordinary memory has room for {} kB",
                kib(*need),
                kib(*room)
            ),
            Self::TimeUp(ms) => write!(f, "not all pages have moved in {ms} ms"),
            Self::NotErased(error) => {
                write!(f, "its memory could not be erased ({})", error.to_errno())
            }
        }
    }
}

/// Who uses the pages of a node.
#[derive(Default)]
pub(crate) struct Users {
    pub(crate) raw: bindings::cdm_users,
    /// Pages that are broken: these keep no node from leaving.
    pub(crate) bad: usize,
}

impl Users {
    /// How many pages are in use.
    pub(crate) fn pages(&self) -> usize {
        self.raw.anon + self.raw.file + self.raw.hugetlb + self.raw.other
    }
}

impl fmt::Display for Users {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let users = &self.raw;
        let pages = self.pages();
        write!(
            f,
            "{pages} pages in use: {} anonymous, {} file, {} hugetlb, {} other; ",
            users.anon, users.file, users.hugetlb, users.other
        )?;
        write!(
            f,
            "{} held: {} pinned, {} locked, {} under writeback",
            users.held, users.pinned, users.locked, users.writeback
        )?;
        if users.nr_pids != 0 {
            f.write_str("; by pids")?;
        }
        for pid in users.pids.iter().take(users.nr_pids as usize) {
            write!(f, " {pid}")?;
        }
        if self.bad != 0 {
            write!(f, "; {} broken pages stay out of use", self.bad)?;
        }
        Ok(())
    }
}

/// Both, in one line.
pub(crate) struct Stays<'a>(pub(crate) &'a Obstacle, pub(crate) &'a Users);

impl fmt::Display for Stays<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_fmt(fmt!("{}; {}", self.0, self.1))
    }
}

/// Who wants a node to leave.
pub(crate) struct Asker {
    raw: bindings::cdm_asker,
    by: By,
}

impl Asker {
    /// The current task.
    pub(crate) fn current(by: By) -> Self {
        let mut raw = bindings::cdm_asker::default();
        // SAFETY: `raw` is valid for writes.
        unsafe { bindings::cdm_who_asks(&mut raw) };
        Self { raw, by }
    }
}

impl fmt::Display for Asker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self.by {
            By::Driver | By::Loss if self.raw.hotplug => "hot-plug, ",
            By::Driver | By::Loss => "its driver, ",
            By::Device => "the bus, ",
            By::Core | By::Sleep => "the kernel, ",
            By::Admin => "",
        })?;
        write!(f, "pid {} (", self.raw.pid)?;
        let comm = CStr::from_bytes_until_nul(&self.raw.comm).unwrap_or_default();
        f.write_fmt(fmt!("{}", comm))?;
        f.write_str(")")
    }
}

#[cfg(CONFIG_CDM_KUNIT_TEST)]
#[kunit_tests(cdm_obstacle)]
mod tests {
    use super::*;
    use kernel::str::CString;

    fn met(what: u32) -> Obstacle {
        Obstacle::from_raw(&bindings::cdm_obstacle {
            what,
            error: -16,
            timeout_ms: 250,
            need: 1024,
            room: 256,
        })
    }

    fn reads(what: impl fmt::Display, text: &CStr) -> Result {
        assert_eq!(
            CString::try_from_fmt(fmt!("{}", what))?.to_bytes(),
            text.to_bytes()
        );
        Ok(())
    }

    #[test]
    fn each_has_an_errno_and_words() -> Result {
        let busy = met(bindings::CDM_STAYS_HOTPLUG);
        assert_eq!(busy.errno(), EBUSY);
        reads(busy, c"memory hotplug is busy")?;

        let room = met(bindings::CDM_STAYS_ROOM);
        assert_eq!(room.errno(), ENOMEM);
        let words = c"4096 kB are in use, and ordinary memory has room for 1024 kB";
        reads(room, words)?;

        let time = met(bindings::CDM_STAYS_TIME);
        assert_eq!(time.errno(), EBUSY);
        reads(time, c"not all pages have moved in 250 ms")
    }

    #[test]
    fn holders() -> Result {
        let mut users = Users::default();
        users.raw.anon = 7;
        users.raw.held = 4;
        let words = c"7 pages in use: 7 anonymous, 0 file, 0 hugetlb, 0 other; \
                      4 held: 0 pinned, 0 locked, 0 under writeback";
        reads(&users, words)?;

        users.raw.nr_pids = 2;
        users.raw.pids = [10, 20, 0, 0];
        users.bad = 3;
        let words = c"7 pages in use: 7 anonymous, 0 file, 0 hugetlb, 0 other; \
                      4 held: 0 pinned, 0 locked, 0 under writeback; by pids 10 20; \
                      3 broken pages stay out of use";
        reads(&users, words)
    }
}
