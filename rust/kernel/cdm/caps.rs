// SPDX-License-Identifier: GPL-2.0

//! Capabilities: what the kernel may do with the pages of a node.
//!
//! Bits, names and rules are in this file only; the promise that each makes is in
//! `Documentation/mm/cdm.rst`.

use crate::{
    bindings,
    fmt,
    prelude::*,
    str::BStr, //
};

crate::impl_flags!(
    /// A set of capabilities. What is not in it is denied.
    ///
    /// # Examples
    ///
    /// ```
    /// use kernel::cdm::{
    ///     Cap,
    ///     Caps, //
    /// };
    ///
    /// let caps = Caps::parse(b"migrate,thp")?;
    /// assert!(caps.contains(Cap::Thp));
    /// assert!(!caps.contains(Cap::Ksm));
    /// assert!(caps.broken_rule().is_none());
    ///
    /// // Who pins for long has to be allowed to pin.
    /// let caps = Caps::parse(b"longterm_pin")?;
    /// assert_eq!(caps.broken_rule().map(|rule| rule.needs), Some(Cap::Gup));
    ///
    /// assert_eq!(Caps::parse(b"migrate,kernel"), Err(EOPNOTSUPP));
    /// assert_eq!(Caps::parse(b"migrat"), Err(EINVAL));
    /// # Ok::<(), Error>(())
    /// ```
    #[derive(Debug, Clone, Default, Copy, PartialEq, Eq)]
    pub struct Caps(u32);

    /// One capability.
    #[derive(Debug, Clone, Copy, PartialEq, Eq)]
    pub enum Cap {
        /// Hinting faults, and the migration that follows them.
        NumaBalancing = bindings::CDM_ALLOW_NUMA,

        /// Merging of equal pages of the node.
        Ksm = bindings::CDM_ALLOW_KSM,

        /// hugetlb pages.
        Hugetlb = bindings::CDM_ALLOW_HUGETLB,

        /// Migration in and out.
        Migrate = bindings::CDM_ALLOW_MIGRATE,

        /// Page references that outlive the call or reach a device.
        Gup = bindings::CDM_ALLOW_GUP,

        /// Long-term pins in place.
        LongtermPin = bindings::CDM_ALLOW_LONGTERM_PIN,

        /// Huge and large folios.
        Thp = bindings::CDM_ALLOW_THP,

        /// Folios of regular files, by migration.
        Pagecache = bindings::CDM_ALLOW_PAGECACHE,

        /// Reclaim.
        Reclaim = bindings::CDM_ALLOW_RECLAIM,

        /// Swapping out of anonymous pages.
        Swap = bindings::CDM_ALLOW_SWAP,

        /// Being a demotion target.
        Demotion = bindings::CDM_ALLOW_DEMOTION,

        /// Compaction.
        Compaction = bindings::CDM_ALLOW_COMPACTION,

        /// Being named by an interleave policy.
        Interleave = bindings::CDM_ALLOW_INTERLEAVE,

        /// Monitoring and actions by DAMON.
        Damon = bindings::CDM_ALLOW_DAMON,

        /// Soft offline.
        SoftOffline = bindings::CDM_ALLOW_SOFT_OFFLINE,
    }
);

/// In the order of the bits, in which user space sees the names.
const NAMES: [(Cap, &str); bindings::CDM_NR_CAPS as usize] = [
    (Cap::NumaBalancing, "numa_balancing"),
    (Cap::Ksm, "ksm"),
    (Cap::Hugetlb, "hugetlb"),
    (Cap::Migrate, "migrate"),
    (Cap::Gup, "gup"),
    (Cap::LongtermPin, "longterm_pin"),
    (Cap::Thp, "thp"),
    (Cap::Pagecache, "pagecache"),
    (Cap::Reclaim, "reclaim"),
    (Cap::Swap, "swap"),
    (Cap::Demotion, "demotion"),
    (Cap::Compaction, "compaction"),
    (Cap::Interleave, "interleave"),
    (Cap::Damon, "damon"),
    (Cap::SoftOffline, "soft_offline"),
];

/// Names that mean something and cannot be allowed: kernel data on the node, and the node as a
/// fallback for those who did not name it.
const RESERVED: [&str; 2] = ["kernel", "fallback"];

macro_rules! rules {
    ($($cap:ident needs $needs:ident),* $(,)?) => {
        /// What a capability is of no use, or not safe, without; and how the compiler says so.
        const RULES: &[(Rule, &str)] = &[$((
            Rule {
                cap: Cap::$cap,
                needs: Cap::$needs,
            },
            ::core::concat!(
                "Cap::", ::core::stringify!($cap), " needs Cap::", ::core::stringify!($needs),
            ),
        )),*];
    };
}

rules! {
    LongtermPin needs Gup,
    NumaBalancing needs Migrate,
    Compaction needs Migrate,
    Demotion needs Migrate,
    Pagecache needs Migrate,
    Swap needs Reclaim,
    Demotion needs Reclaim,
}

/// What is wrong with a list of names.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BadWord<'a> {
    /// There is no word.
    None,
    /// It is no name of a capability.
    Unknown(&'a [u8]),
    /// It means something that cannot be allowed.
    Reserved(&'a [u8]),
    /// It stands for a whole list, and is not the only word.
    NotAlone(&'a [u8]),
}

impl BadWord<'_> {
    /// The errno of [`Caps::parse`].
    pub fn errno(&self) -> Error {
        match self {
            Self::Reserved(_) => EOPNOTSUPP,
            Self::None | Self::Unknown(_) | Self::NotAlone(_) => EINVAL,
        }
    }
}

impl fmt::Display for BadWord<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (word, what) = match self {
            Self::None => return f.write_str("there is no name"),
            Self::Unknown(word) => (word, "is no capability"),
            Self::Reserved(word) => (word, "cannot be allowed"),
            Self::NotAlone(word) => (word, "must stand alone"),
        };
        let word = BStr::from_bytes(word);
        f.write_fmt(fmt!("\"{}\" {}", word, what))
    }
}

/// A capability that another one needs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rule {
    /// The one that needs.
    pub cap: Cap,
    /// The one that is needed.
    pub needs: Cap,
}

impl Cap {
    /// Returns the name that user space knows.
    pub fn name(self) -> &'static str {
        // The table has every capability, at the place of its bit.
        NAMES.get(self.bit() as usize).map_or("", |(_, name)| *name)
    }

    /// Returns the number of its bit.
    pub const fn bit(self) -> u32 {
        (self as u32).trailing_zeros()
    }

    /// Returns all of them in the order of the bits.
    pub fn in_order() -> impl Iterator<Item = Self> {
        NAMES.iter().map(|(cap, _)| *cap)
    }
}

impl Caps {
    /// Everything.
    pub const ALL: Self = Self(bindings::CDM_ALLOW_ALL);

    /// What lets other devices reach the memory: the page is handed to them, or a file system or a
    /// swap device reads and writes it.
    pub const NEED_PEER_TO_PEER: Self =
        Self::of(&[Cap::Gup, Cap::LongtermPin, Cap::Pagecache, Cap::Swap]);

    /// Returns the set of the given capabilities.
    ///
    /// [`cdm_caps!`](crate::cdm_caps) also checks the rules, at compile time.
    pub const fn of(caps: &[Cap]) -> Self {
        let mut bits = 0;
        let mut i = 0;
        // `for` is not allowed in constants.
        while i < caps.len() {
            bits |= caps[i] as u32;
            i += 1;
        }
        Self(bits)
    }

    /// Returns the set with these `CDM_ALLOW_*` bits, or [`None`] if one of them is unknown.
    pub const fn from_bits(bits: u32) -> Option<Self> {
        if bits & !bindings::CDM_ALLOW_ALL == 0 {
            Some(Self(bits))
        } else {
            None
        }
    }

    /// Returns what is allowed where these bits are denied.
    pub const fn from_denied(denied: u32) -> Self {
        Self(!denied & bindings::CDM_ALLOW_ALL)
    }

    /// Returns the bits of what is allowed.
    pub const fn bits(self) -> u32 {
        self.0
    }

    /// Returns the bits of what is denied.
    pub const fn denied(self) -> u32 {
        !self.0 & bindings::CDM_ALLOW_ALL
    }

    const fn broken(self) -> Option<(Rule, &'static str)> {
        let mut i = 0;
        while i < RULES.len() {
            let (rule, _) = RULES[i];
            if self.0 & rule.cap as u32 != 0 && self.0 & rule.needs as u32 == 0 {
                return Some(RULES[i]);
            }
            i += 1;
        }
        None
    }

    /// Returns the first rule that the set breaks.
    pub const fn broken_rule(self) -> Option<Rule> {
        match self.broken() {
            Some((rule, _)) => Some(rule),
            None => None,
        }
    }

    /// Returns what [`cdm_caps!`](crate::cdm_caps) says about the first rule that the set breaks.
    #[doc(hidden)]
    pub const fn complaint(self) -> Option<&'static str> {
        match self.broken() {
            Some((_, text)) => Some(text),
            None => None,
        }
    }

    /// Reads names that are separated by commas or white space, or `all`, or `none`.
    ///
    /// It does not check the rules, and registering does.
    ///
    /// Returns [`EINVAL`] for a name that is not known and for no name at all, and [`EOPNOTSUPP`]
    /// for one that is reserved.
    pub fn parse(text: &[u8]) -> Result<Self> {
        Self::read(text).map_err(|bad| bad.errno())
    }

    /// Like [`parse`](Self::parse), with an error that says which word is wrong.
    ///
    /// # Examples
    ///
    /// ```
    /// use kernel::{
    ///     cdm::Caps,
    ///     str::CString, //
    /// };
    ///
    /// let bad = Caps::read(b"migrate,thpp").unwrap_err();
    /// let text = CString::try_from_fmt(fmt!("{}", bad))?;
    /// assert_eq!(text.to_bytes(), b"\"thpp\" is no capability");
    /// # Ok::<(), Error>(())
    /// ```
    pub fn read(text: &[u8]) -> Result<Self, BadWord<'_>> {
        let mut words = text
            .split(|byte| *byte == b',' || byte.is_ascii_whitespace())
            .filter(|word| !word.is_empty())
            .peekable();

        let first = *words.peek().ok_or(BadWord::None)?;
        if first == b"all" || first == b"none" {
            return match (words.count(), first) {
                (1, b"all") => Ok(Self::ALL),
                (1, _) => Ok(Self::empty()),
                _ => Err(BadWord::NotAlone(first)),
            };
        }

        let mut caps = Self::empty();
        for word in words {
            if RESERVED.iter().any(|name| name.as_bytes() == word) {
                return Err(BadWord::Reserved(word));
            }
            if word == b"all" || word == b"none" {
                return Err(BadWord::NotAlone(word));
            }
            let (cap, _) = NAMES
                .iter()
                .find(|(_, name)| name.as_bytes() == word)
                .ok_or(BadWord::Unknown(word))?;
            caps |= *cap;
        }
        Ok(caps)
    }
}

impl fmt::Display for Cap {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl fmt::Display for Caps {
    /// Writes the names in the order of the bits, or `none`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if *self == Self::empty() {
            return f.write_str("none");
        }
        let mut separator = "";
        for (cap, name) in NAMES {
            if self.contains(cap) {
                f.write_str(separator)?;
                f.write_str(name)?;
                separator = " ";
            }
        }
        Ok(())
    }
}

impl fmt::Display for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.cap.name())?;
        f.write_str(" needs ")?;
        f.write_str(self.needs.name())
    }
}

/// Makes a constant [`Caps`](crate::cdm::Caps) of some capabilities.
///
/// A set that breaks a rule does not compile, and the error names the rule.
///
/// # Examples
///
/// ```
/// use kernel::{
///     cdm::{
///         Cap,
///         Caps, //
///     },
///     cdm_caps, //
/// };
///
/// const CAPS: Caps = cdm_caps![Cap::Migrate, Cap::NumaBalancing];
/// assert_eq!(CAPS, Cap::NumaBalancing | Cap::Migrate);
/// assert_eq!(cdm_caps![], Caps::empty());
/// ```
///
/// ```ignore,compile_fail
/// # use kernel::{cdm::Cap, cdm_caps};
/// // error: Cap::LongtermPin needs Cap::Gup
/// let caps = cdm_caps![Cap::LongtermPin];
/// ```
///
/// ```ignore,compile_fail
/// # use kernel::{cdm::Cap, cdm_caps};
/// // error: Cap::Demotion needs Cap::Reclaim
/// let caps = cdm_caps![Cap::Migrate, Cap::Demotion];
/// ```
#[macro_export]
macro_rules! cdm_caps {
    ($($cap:expr),* $(,)?) => {
        const {
            let caps = $crate::cdm::Caps::of(&[$($cap),*]);
            if let ::core::option::Option::Some(complaint) = caps.complaint() {
                ::core::panic!("{}", complaint);
            }
            caps
        }
    };
}

#[cfg(CONFIG_CDM_KUNIT_TEST)]
#[macros::kunit_tests(cdm_caps)]
mod tests {
    use super::*;
    use crate::str::CString;

    fn text(caps: Caps) -> Result<CString> {
        CString::try_from_fmt(fmt!("{}", caps))
    }

    #[test]
    fn names_are_in_the_order_of_the_bits() {
        for (bit, (cap, name)) in NAMES.iter().enumerate() {
            assert_eq!(*cap as u32, 1 << bit);
            assert_eq!(cap.name(), *name);
            assert_eq!(Caps::parse(name.as_bytes()), Ok(Caps::from(*cap)));
        }
        assert_eq!(Caps::ALL.bits(), Caps::all_bits());
    }

    #[test]
    fn parsing() {
        let both = Cap::Migrate | Cap::Gup;
        assert_eq!(Caps::parse(b"migrate,gup"), Ok(both));
        assert_eq!(Caps::parse(b" gup\tmigrate \n"), Ok(both));
        assert_eq!(Caps::parse(b"gup,,migrate,gup"), Ok(both));
        assert_eq!(Caps::parse(b"none\n"), Ok(Caps::empty()));
        assert_eq!(Caps::parse(b"all"), Ok(Caps::ALL));

        assert_eq!(Caps::parse(b""), Err(EINVAL));
        assert_eq!(Caps::parse(b" ,"), Err(EINVAL));
        assert_eq!(Caps::parse(b"GUP"), Err(EINVAL));
        assert_eq!(Caps::parse(b"gup,none"), Err(EINVAL));
        assert_eq!(Caps::parse(b"none,gup"), Err(EINVAL));
        assert_eq!(Caps::parse(b"all,gup"), Err(EINVAL));
        assert_eq!(Caps::parse(b"gup,fallback"), Err(EOPNOTSUPP));
        assert_eq!(Caps::parse(b"kernel"), Err(EOPNOTSUPP));
    }

    #[test]
    fn the_wrong_word_is_named() {
        assert_eq!(Caps::read(b" ,"), Err(BadWord::None));
        assert_eq!(Caps::read(b"gup,GUP"), Err(BadWord::Unknown(b"GUP")));
        assert_eq!(Caps::read(b"all,thp"), Err(BadWord::NotAlone(b"all")));
        assert_eq!(Caps::read(b"thp,none"), Err(BadWord::NotAlone(b"none")));
        assert_eq!(Caps::read(b"thp,kernel"), Err(BadWord::Reserved(b"kernel")));
    }

    #[test]
    fn formatting_and_parsing_are_inverse() -> Result {
        for bits in 0..=bindings::CDM_ALLOW_ALL {
            // All of them would take long under an emulator.
            if bits.count_ones() > 2 && bits % 61 != 0 {
                continue;
            }
            let caps = Caps::from_bits(bits).ok_or(EINVAL)?;
            assert_eq!(Caps::parse(text(caps)?.to_bytes()), Ok(caps));
        }
        Ok(())
    }

    #[test]
    fn bits() {
        assert_eq!(Caps::from_bits(1 << bindings::CDM_NR_CAPS), None);
        assert_eq!(Caps::from_denied(0), Caps::ALL);
        assert_eq!(Caps::ALL.denied(), 0);
        assert_eq!(
            Caps::from_denied(Caps::of(&[Cap::Ksm]).denied()),
            Cap::Ksm.into()
        );
        // Whatever is in the word beside them.
        assert_eq!(Caps::from_denied(!0), Caps::empty());
    }

    #[test]
    fn every_rule_is_checked() {
        for (rule, text) in RULES {
            // All that the capability needs but this.
            let others = RULES
                .iter()
                .map(|(other, _)| other)
                .filter(|other| other.cap == rule.cap && other.needs != rule.needs)
                .fold(Caps::empty(), |caps, other| caps | other.needs);
            assert_eq!((others | rule.cap).broken_rule(), Some(*rule));
            assert_eq!((others | rule.cap).complaint(), Some(*text));
            assert_eq!((others | rule.cap | rule.needs).broken_rule(), None);
        }
        assert_eq!(Caps::ALL.broken_rule(), None);
        assert_eq!(Caps::empty().broken_rule(), None);
        assert_eq!(cdm_caps![Cap::Gup, Cap::LongtermPin].broken_rule(), None);
    }
}
