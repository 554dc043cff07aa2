// SPDX-License-Identifier: GPL-2.0

//! Dax devices as coherent device memory.
//!
//! Takes a device whose name is written to `new_id`, as `fsdev_dax` does, and makes a NUMA node of
//! its memory when the administrator writes `online` to the device's `state`. With the parameter
//! `auto` it also takes what `kmem` would, and does so at once. See
//! Documentation/admin-guide/mm/cdm.rst.
//!
//! The memory is the machine's own: CXL, soft reserved or persistent memory, which CPUs and devices
//! reach as they reach RAM.

use kernel::{
    alloc::{
        AllocError,
        NumaNode, //
    },
    cdm::{
        self,
        Caps,
        Coherent,
        Config,
        Node, //
    },
    dax,
    device::{
        attr::{
            Attribute,
            Attributes, //
        },
        Bound,
        Core, //
    },
    driver,
    fmt::{
        self,
        Write, //
    },
    module::this_module,
    new_mutex,
    prelude::*,
    str::Formatter,
    sync::Mutex, //
};

type Adapter = dax::Adapter<Cdm>;

/// What the administrator has said, and what came of it.
struct Inner<'bound> {
    /// `None` until he has: a mask has no default.
    caps: Option<Caps>,
    /// `None` is the node that the firmware has for the memory.
    nid: Option<NumaNode>,
    /// Its memory may have gone, see [`Node::is_up`]; then only the number is the device's.
    node: Option<Node<'bound>>,
}

impl Inner<'_> {
    fn online(&self) -> Option<&Node<'_>> {
        self.node.as_ref().filter(|node| node.is_up())
    }

    /// The node whose pages are to be had by the file. Its number is the device's as long as this
    /// has it, wherever its memory is.
    fn file_node(&self) -> Option<NumaNode> {
        NumaNode::new(self.node.as_ref()?.id()).ok()
    }
}

#[pin_data]
struct Data<'bound> {
    ddev: &'bound dax::Device<Bound>,
    // Before the node: nobody gets its pages any more by the file then.
    file: dax::File<'bound>,
    #[pin]
    inner: Mutex<Inner<'bound>>,
}

/// Bytes, for people.
struct Size(u64);

impl fmt::Display for Size {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0 % (1 << 20) == 0 {
            write!(f, "{} MiB", self.0 >> 20)
        } else {
            write!(f, "{} KiB", self.0 >> 10)
        }
    }
}

/// Why a device's memory cannot be a node.
enum Unusable {
    /// No whole memory block in so many bytes.
    NoBlock(u64),
    /// So many ranges that are not adjacent.
    Ranges(usize),
    Failed(Error),
}

impl Unusable {
    fn errno(&self) -> Error {
        match self {
            Self::NoBlock(_) => EINVAL,
            Self::Ranges(_) => EOPNOTSUPP,
            Self::Failed(error) => *error,
        }
    }
}

impl fmt::Display for Unusable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoBlock(size) => f.write_fmt(fmt!(
                "no whole memory block of {} in its {}",
                Size(cdm::block_size()),
                Size(*size)
            )),
            Self::Ranges(count) => {
                write!(f, "its memory is {count} ranges apart, and a node has one")
            }
            Self::Failed(error) => write!(f, "an allocation failed ({})", error.to_errno()),
        }
    }
}

impl From<AllocError> for Unusable {
    fn from(error: AllocError) -> Self {
        Self::Failed(error.into())
    }
}

/// Returns the place of the range that is beside this one, and the two as one.
fn adjacent<'a>(
    others: &[dax::Range<'a>],
    range: dax::Range<'a>,
) -> Option<(usize, dax::Range<'a>)> {
    others.iter().enumerate().find_map(|(i, other)| {
        let both = other.join(range).or_else(|| range.join(*other))?;
        Some((i, both))
    })
}

/// Returns the range that can be a node, and how much of the device is not in it.
fn usable(ddev: &dax::Device<Bound>) -> Result<(dax::Range<'_>, u64), Unusable> {
    let mut size = 0;
    let mut joined: KVec<dax::Range<'_>> = KVec::new();
    for mut range in ddev.ranges() {
        size += range.size();
        while let Some((i, both)) = adjacent(&joined, range) {
            // It is there.
            let _ = joined.remove(i);
            range = both;
        }
        joined.push(range, GFP_KERNEL)?;
    }

    let mut whole = joined
        .iter()
        .filter_map(|range| range.whole_blocks(cdm::block_size()));
    let first = whole.next().ok_or(Unusable::NoBlock(size))?;
    match whole.count() {
        0 => Ok((first, size - first.size())),
        others => Err(Unusable::Ranges(1 + others)),
    }
}

/// Returns the range that can be a node, and says what is lost or why there is none.
fn memory(ddev: &dax::Device<Bound>) -> Result<dax::Range<'_>> {
    match usable(ddev) {
        Ok((range, 0)) => Ok(range),
        Ok((range, lost)) => {
            dev_warn!(
                ddev,
                "{} of {} are not whole memory blocks of {}, and not used\n",
                Size(lost),
                Size(lost + range.size()),
                Size(cdm::block_size())
            );
            Ok(range)
        }
        Err(unusable) => {
            dev_err!(ddev, "not online: {}\n", unusable);
            Err(unusable.errno())
        }
    }
}

impl<'bound> Inner<'bound> {
    /// Makes a node of the device's memory.
    fn bring_online(&mut self, ddev: &'bound dax::Device<Bound>) -> Result {
        if self.online().is_some() {
            return Err(EBUSY);
        }
        let Some(caps) = self.caps else {
            dev_err!(ddev, "not online: write to cdm_caps first\n");
            return Err(EINVAL);
        };
        let config = Config::new(caps, Coherent::asserted()).peer_to_peer();
        let config = match (self.nid, ddev.target_node()) {
            (Some(nid), _) => config.nid(nid),
            (None, Some(nid)) => config.prefer_nid(nid),
            (None, None) => {
                dev_info!(ddev, "it has no target node: the core chooses one\n");
                config
            }
        };
        let range = memory(ddev)?;

        // The number that was kept for what the administrator has unplugged
        self.node = None;
        self.node = Some(Node::register_dax(
            range,
            &config,
            this_module::<crate::LocalModule>(),
        )?);
        Ok(())
    }

    /// Does what the parameter says with a device that came by itself.
    ///
    /// If that fails the log says why, and the device is unplugged: it is not for `kmem` either.
    fn auto(&mut self, ddev: &'bound dax::Device<Bound>) {
        let names = module_parameters::auto.value();

        if names.as_bytes().is_empty() {
            return;
        }
        match Caps::read(names.as_bytes()) {
            Ok(caps) => {
                self.caps = Some(caps);
                let _ = self.bring_online(ddev);
            }
            Err(bad) => dev_err!(ddev, "auto: {}\n", bad),
        }
    }
}

impl<'bound> Data<'bound> {
    fn online(&self) -> Result {
        let mut inner = self.inner.lock();

        if inner.online().is_none() {
            self.file.set_node(None);
        }
        let done = inner.bring_online(self.ddev);
        self.file.set_node(inner.file_node());
        done
    }

    fn unplug(&self) -> Result {
        let mut inner = self.inner.lock();

        let Some(node) = inner.node.take_if(|node| node.is_up()) else {
            return Ok(());
        };
        self.file.set_node(None);
        node.leave().map_err(|(node, error)| {
            inner.node = Some(node);
            self.file.set_node(inner.file_node());
            error
        })
    }

    /// Changes what can be changed while there is no node.
    fn change(&self, change: impl FnOnce(&mut Inner<'bound>)) -> Result {
        let mut inner = self.inner.lock();

        if inner.online().is_some() {
            return Err(EBUSY);
        }
        change(&mut inner);
        Ok(())
    }
}

struct CdmCaps;

#[vtable]
impl Attribute<Adapter> for CdmCaps {
    const NAME: &'static CStr = c"cdm_caps";

    fn show<'bound>(data: Pin<&'bound Data<'bound>>, out: &mut Formatter<'_>) -> Result {
        match data.inner.lock().caps {
            Some(caps) => Ok(out.write_fmt(fmt!("{}\n", caps))?),
            None => Ok(out.write_str("\n")?),
        }
    }

    fn store<'bound>(data: Pin<&'bound Data<'bound>>, text: &[u8]) -> Result {
        let caps = Caps::parse(text).inspect_err(|_| {
            dev_err!(data.ddev, "cdm_caps: not the names of capabilities\n");
        })?;

        data.change(|inner| inner.caps = Some(caps))
    }
}

struct CdmNid;

#[vtable]
impl Attribute<Adapter> for CdmNid {
    const NAME: &'static CStr = c"cdm_nid";

    fn show<'bound>(data: Pin<&'bound Data<'bound>>, out: &mut Formatter<'_>) -> Result {
        let inner = data.inner.lock();
        let nid = match (inner.online(), inner.nid) {
            (Some(node), _) => node.id(),
            (None, Some(nid)) => nid.id(),
            (None, None) => return Ok(out.write_str("auto\n")?),
        };

        Ok(out.write_fmt(fmt!("{}\n", nid))?)
    }

    fn store<'bound>(data: Pin<&'bound Data<'bound>>, text: &[u8]) -> Result {
        let nid = match text.trim_ascii() {
            b"auto" => None,
            text => Some(parse_nid(text).inspect_err(|_| {
                dev_err!(data.ddev, "cdm_nid: neither a node nor auto\n");
            })?),
        };

        data.change(|inner| inner.nid = nid)
    }
}

fn parse_nid(text: &[u8]) -> Result<NumaNode> {
    let text = core::str::from_utf8(text).map_err(|_| EINVAL)?;

    NumaNode::new(text.parse().map_err(|_| EINVAL)?)
}

struct State;

#[vtable]
impl Attribute<Adapter> for State {
    const NAME: &'static CStr = c"state";

    fn show<'bound>(data: Pin<&'bound Data<'bound>>, out: &mut Formatter<'_>) -> Result {
        Ok(out.write_str(match data.inner.lock().online() {
            Some(_) => "online\n",
            None => "unplugged\n",
        })?)
    }

    fn store<'bound>(data: Pin<&'bound Data<'bound>>, text: &[u8]) -> Result {
        match text.trim_ascii() {
            b"online" => data.online(),
            b"unplugged" => data.unplug(),
            _ => Err(EINVAL),
        }
    }
}

struct Cdm;

kernel::device_attributes! {
    static ATTRIBUTES: Adapter = [CdmCaps, CdmNid, State];
}

impl dax::Driver for Cdm {
    type Data<'bound> = Data<'bound>;

    const ATTRIBUTES: Option<&'static Attributes<Adapter>> = Some(&ATTRIBUTES);
    const TAKES_RESERVED: bool = true;

    fn probe<'bound>(
        ddev: &'bound dax::Device<Core<'_>>,
    ) -> impl PinInit<Data<'bound>, Error> + 'bound {
        let ddev: &'bound dax::Device<Bound> = ddev;

        pin_init::pin_init_scope(move || {
            // The driver may have been unbound, and not have been able to take the node along.
            let kept = match usable(ddev) {
                Ok((range, _)) => Node::take_back_dax(range, this_module::<crate::LocalModule>())?,
                Err(_) => None,
            };
            let (node, caps) = kept.unzip();
            let mut inner = Inner {
                caps,
                nid: None,
                node,
            };
            if inner.node.is_none() && !ddev.is_named() {
                inner.auto(ddev);
            }

            // SAFETY: It is a field of `Data`, which the core drops when the driver goes.
            let file = unsafe { dax::File::add::<Cdm>(ddev) }?;
            file.set_node(inner.file_node());

            Ok(try_pin_init!(Data {
                ddev,
                file,
                inner <- new_mutex!(inner),
            }))
        })
    }
}

impl dax::FileOperations for Cdm {
    type OwnerModule = crate::LocalModule;

    /// Who may open the file gets pages of the node, and need not know its number.
    fn mmap(ddev: &dax::Device, mapping: dax::Mapping<'_>) -> Result {
        if mapping.is_shared() {
            ddev.refuse_mapping(c"its pages are anonymous, and only for MAP_PRIVATE");
            return Err(EINVAL);
        }
        mapping.place_on(ddev.file_node().ok_or(ENXIO)?)
    }
}

#[pin_data]
struct DaxCdm {
    #[pin]
    _driver: driver::Registration<Adapter>,
    // As long as there is somebody to take them
    _reservation: Option<dax::Reservation>,
}

impl kernel::InPlaceModule for DaxCdm {
    fn init(module: &'static ThisModule) -> impl PinInit<Self, Error> {
        let is_auto = !module_parameters::auto.value().as_bytes().is_empty();

        try_pin_init!(Self {
            _reservation: is_auto.then(dax::Reservation::hold),
            _driver <- driver::Registration::new(c"cdm", module),
        })
    }
}

module! {
    type: DaxCdm,
    name: "dax_cdm",
    authors: ["The CDM developers"],
    description: "Dax devices as coherent device memory",
    license: "GPL",
    alias: ["dax:t0*"],
    params: {
        auto: string {
            default: "",
            perm: 0o444,
            description: "Take what kmem would, and allow this: names, or all, or none",
        },
    },
}
