// SPDX-License-Identifier: GPL-2.0

//! `cdm attach`, `cdm apply` and `cdm detach`

use crate::{
    conf::{
        self,
        Wish, //
    },
    node,
    print,
    reason,
    Failure, //
};
use std::{
    env,
    ffi::c_int,
    fs,
    io,
    os::fd::AsRawFd,
    path::Path,
    process::{
        Command,
        Stdio, //
    }, //
};

const BUS: &str = "/sys/bus/dax";
const DRIVER: &str = "cdm";
const MODULE: &str = "dax_cdm";

const EBUSY: i32 = 16;

/// Which device is meant.
#[derive(Debug, PartialEq, Eq)]
pub enum Place {
    /// By its name on the bus, which depends on who comes first.
    Name(String),
    /// By the region of CXL that it is in.
    Region(String),
    /// By the address of its memory.
    Address(u64),
}

impl Place {
    pub fn parse(text: &str) -> Option<Self> {
        let is_number = |text: &str| !text.is_empty() && text.bytes().all(|c| c.is_ascii_digit());

        if let Some(numbers) = text.strip_prefix("dax") {
            let (region, id) = numbers.split_once('.')?;
            return (is_number(region) && is_number(id)).then(|| Self::Name(text.to_string()));
        }
        if let Some(number) = text.strip_prefix("region") {
            return is_number(number).then(|| Self::Region(text.to_string()));
        }
        let digits = text.strip_prefix("0x")?;
        if !digits.bytes().all(|c| c.is_ascii_hexdigit()) {
            return None;
        }
        u64::from_str_radix(digits, 16).ok().map(Self::Address)
    }

    fn is_of(&self, device: &Device) -> bool {
        match self {
            Self::Name(name) => device.name == *name,
            Self::Region(region) => {
                device.has_memory()
                    && fs::canonicalize(device.file(""))
                        .is_ok_and(|path| path.iter().any(|part| part.to_str() == Some(region)))
            }
            Self::Address(address) => {
                let resource = device.read("resource");
                let start = resource.strip_prefix("0x").unwrap_or_default();
                device.has_memory() && u64::from_str_radix(start, 16) == Ok(*address)
            }
        }
    }
}

/// A device on the dax bus.
struct Device {
    name: String,
}

impl Device {
    /// All, by name.
    fn all() -> Vec<Self> {
        let mut names: Vec<String> = fs::read_dir(format!("{BUS}/devices"))
            .into_iter()
            .flatten()
            .filter_map(|entry| entry.ok()?.file_name().into_string().ok())
            .collect();
        names.sort_unstable();
        names.into_iter().map(|name| Self { name }).collect()
    }

    /// The one that is meant, if it is there.
    fn lookup(text: &str) -> Result<Option<Self>, Failure> {
        let Some(place) = Place::parse(text) else {
            return Ok(None);
        };
        let mut found: Vec<Self> = Self::all()
            .into_iter()
            .filter(|device| place.is_of(device))
            .collect();
        if found.len() > 1 {
            return Err(Failure::new(format!(
                "{text} is more than one device: {}",
                names(&found)
            )));
        }
        Ok(found.pop())
    }

    fn find(text: &str) -> Result<Self, Failure> {
        Self::lookup(text)?.ok_or_else(|| {
            let others = Self::all();
            Failure::new(format!(
                "there is no dax device {text}{}",
                if others.is_empty() {
                    ", and no other".to_string()
                } else {
                    format!(", but {}", names(&others))
                }
            ))
        })
    }

    fn file(&self, file: &str) -> String {
        format!("{BUS}/devices/{}/{file}", self.name)
    }

    /// What a file of it says; nothing if there is no such file.
    fn read(&self, file: &str) -> String {
        fs::read_to_string(self.file(file)).map_or(String::new(), |text| text.trim().to_string())
    }

    fn write(&self, file: &str, text: &str) -> io::Result<()> {
        fs::write(self.file(file), text)
    }

    /// A region has a device without memory, of which more devices can be made.
    fn has_memory(&self) -> bool {
        !matches!(self.read("size").as_str(), "" | "0")
    }

    fn driver(&self) -> Option<String> {
        let target = fs::read_link(self.file("driver")).ok()?;
        Some(target.file_name()?.to_string_lossy().into_owned())
    }

    /// Writes its name to a file of a driver.
    fn tell(&self, driver: &str, file: &str) -> Result<(), Failure> {
        let path = format!("{BUS}/drivers/{driver}/{file}");
        fs::write(&path, &self.name).map_err(|error| Failure::io(path, &error))
    }

    fn give_to(&self, driver: &str) -> Result<(), Failure> {
        if !has_driver(driver) {
            return Err(Failure::new(format!("there is no driver {driver}")));
        }
        self.tell(driver, "new_id")?;
        if self.driver().as_deref() == Some(driver) {
            return Ok(());
        }
        Err(Failure::new(format!(
            "{}: the driver {driver} does not take it: the kernel's log says why",
            self.name
        )))
    }

    /// Takes it from this driver, which forgets it.
    fn take_from_cdm(&self) -> Result<(), Failure> {
        self.tell(DRIVER, "unbind")?;
        self.tell(DRIVER, "remove_id")
    }

    fn is_online(&self) -> bool {
        self.read("state") == "online"
    }

    /// Is its memory a node of a device?
    fn is_node(&self) -> bool {
        self.driver().as_deref() == Some(DRIVER) && self.is_online()
    }

    /// The node's number.
    fn nid(&self) -> String {
        self.read("cdm_nid")
    }

    /// What the node allows, as --caps has it.
    fn caps(&self) -> String {
        self.read("cdm_caps").replace(' ', ",")
    }

    /// What it is now, for people.
    fn as_node(&self) -> String {
        format!(
            "node {}: {}, allowed: {}",
            self.nid(),
            self.name,
            self.caps()
        )
    }
}

fn names(devices: &[Device]) -> String {
    let names: Vec<&str> = devices.iter().map(|device| device.name.as_str()).collect();
    names.join(", ")
}

/// What a device was before, so that it can be that again.
struct Before {
    driver: Option<String>,
    /// Of kmem's.
    state: String,
}

impl Before {
    /// Takes the device from the driver that has it.
    fn take(device: &Device) -> Result<Self, Failure> {
        let driver = device.driver();
        let mut before = Self {
            driver,
            state: String::new(),
        };

        let Some(name) = before.driver.clone() else {
            return Ok(before);
        };
        if name == "kmem" {
            before.state = device.read("state");
            // Unbound from kmem with its memory online the device would never be free again.
            device.write("state", "unplugged").map_err(|error| {
                if error.raw_os_error() == Some(EBUSY) {
                    Failure::new(format!(
                        "{}: its memory is in use and cannot leave: kmem made it memory for \
                         everybody, the kernel too. Boot with dax_cdm.auto=, or with \
                         memhp_default_state=online_movable",
                        device.name
                    ))
                } else {
                    Failure::io(device.file("state"), &error)
                }
            })?;
        }
        device.tell(&name, "unbind")?;
        Ok(before)
    }

    /// Gives it back.
    fn restore(&self, device: &Device) -> Result<(), Failure> {
        if device.driver().as_deref() == Some(DRIVER) {
            device.take_from_cdm()?;
        }
        let Some(driver) = &self.driver else {
            return Ok(());
        };
        // It had it for what it is, or for its name.
        if device.tell(driver, "bind").is_err() {
            device.give_to(driver)?;
        }
        if driver == "kmem" && device.read("state") != self.state {
            let _ = device.write("state", "unplugged");
            device
                .write("state", &self.state)
                .map_err(|error| Failure::io(device.file("state"), &error))?;
        }
        Ok(())
    }
}

/// Is there this driver, which may be a module?
fn has_driver(driver: &str) -> bool {
    let dir = format!("{BUS}/drivers/{driver}");
    let module = match driver {
        DRIVER => MODULE,
        // The others have its name.
        driver => driver,
    };

    if !Path::new(&dir).exists() {
        let _ = Command::new("modprobe")
            .arg("--")
            .arg(module)
            .stderr(Stdio::null())
            .status();
    }
    Path::new(&dir).exists()
}

fn load_driver() -> Result<(), Failure> {
    if has_driver(DRIVER) {
        return Ok(());
    }
    Err(Failure::new(format!(
        "this kernel has no driver {DRIVER} for dax devices (the module {MODULE})"
    )))
}

fn all_caps() -> String {
    fs::read_to_string("/sys/kernel/mm/cdm/capabilities")
        .map_or(String::new(), |names| names.trim().replace(' ', ","))
}

/// Makes a node of a device that no driver has.
fn bring_online(device: &Device, wish: &Wish) -> Result<(), Failure> {
    device.give_to(DRIVER)?;
    if device.is_online() {
        return Err(Failure::new(format!(
            "{} was node {} when its driver was taken from it, with pages in use, and is that \
             again, allowed: {}",
            device.name,
            device.nid(),
            device.read("cdm_caps")
        )));
    }
    device.write("cdm_caps", &wish.caps).map_err(|error| {
        Failure::new(format!(
            "{}: {}: not what a node can allow; the kernel knows {}",
            wish.caps,
            reason(&error),
            all_caps()
        ))
    })?;
    if let Some(nid) = &wish.nid {
        device
            .write("cdm_nid", nid)
            .map_err(|error| Failure::new(format!("node {nid}: {}", reason(&error))))?;
    }
    device.write("state", "online").map_err(|error| {
        Failure::new(format!(
            "{}: {}: the kernel's log says why",
            device.name,
            reason(&error)
        ))
    })
}

/// Makes a node of a device, or leaves it to whom it was.
fn make_node(device: &Device, wish: &Wish) -> Result<(), Failure> {
    let before = Before::take(device)?;

    let Err(failure) = bring_online(device, wish) else {
        return Ok(());
    };
    // An orphan that has its driver again stays with it.
    if !device.is_online() {
        before.restore(device).map_err(|undo| {
            failure.and(&format!("and it could not be given back: {}", undo.text()))
        })?;
    }
    Err(failure)
}

/// Says who may name the node, if that is wished. Returns whether something changed.
fn set_access(device: &Device, wish: &Wish) -> Result<bool, Failure> {
    let Some(access) = &wish.access else {
        return Ok(false);
    };
    let file = node::file(&device.nid(), "cdm_access");
    let now = fs::read_to_string(&file).map_err(|error| Failure::io(&file, &error))?;
    if now.trim() == access {
        return Ok(false);
    }
    fs::write(&file, access).map_err(|error| Failure::io(format!("{file}: {access}"), &error))?;
    Ok(true)
}

const LOCK: &str = "/run/cdm.lock";
const LOCK_EX: c_int = 2;

extern "C" {
    fn flock(fd: c_int, operation: c_int) -> c_int;
}

/// One at a time takes devices from drivers and gives them to others, while the file is open.
fn lock() -> Result<fs::File, Failure> {
    let file = fs::File::options()
        .create(true)
        .truncate(false)
        .write(true)
        .open(LOCK)
        .map_err(|error| Failure::io(LOCK, &error))?;
    // SAFETY: The descriptor is open, and no memory is passed.
    if unsafe { flock(file.as_raw_fd(), LOCK_EX) } != 0 {
        return Err(Failure::io(LOCK, &io::Error::last_os_error()));
    }
    Ok(file)
}

pub fn attach(mut args: env::ArgsOs) -> Result<(), Failure> {
    let (mut name, mut caps) = (None, None);
    let mut wish = Wish::default();

    while let Some(arg) = args.next() {
        let mut value = |what: &str| {
            args.next()
                .and_then(|value| value.into_string().ok())
                .ok_or_else(|| Failure::usage(format!("attach: {what}")))
        };
        match arg.to_str() {
            Some("--caps") => caps = Some(value("--caps needs names")?),
            Some("--nid") => wish.nid = Some(value("--nid needs a node number")?),
            Some("--access") => wish.access = Some(value("--access needs all or listed")?),
            Some(word) if !word.starts_with('-') && name.is_none() => name = Some(word.to_string()),
            _ => {
                return Err(Failure::usage(format!(
                    "attach: {}: no such option",
                    arg.to_string_lossy()
                )))
            }
        }
    }
    let name = name.ok_or_else(|| Failure::usage("attach: which device? daxX.Y"))?;
    wish.caps = caps.ok_or_else(|| {
        Failure::usage("attach: what may the kernel do there? --caps NAMES, or none")
    })?;

    let device = Device::find(&name)?;
    let _lock = lock()?;
    load_driver()?;
    if device.is_node() {
        return Err(Failure::new(format!(
            "{name} is node {} already",
            device.nid()
        )));
    }
    make_node(&device, &wish)?;
    set_access(&device, &wish)?;
    print(&format!("{}\n", device.as_node()))
}

/// Why a node is not what a line says, if it is not.
fn differs(device: &Device, wish: &Wish) -> Option<String> {
    let sorted = |caps: &str| {
        let mut names: Vec<String> = caps.split(',').map(str::to_string).collect();
        names.sort_unstable();
        names.dedup();
        names
    };
    let wanted = match wish.caps.as_str() {
        "all" => all_caps(),
        caps => caps.to_string(),
    };

    if sorted(&device.caps()) != sorted(&wanted) {
        return Some(format!("which allows {}", device.caps()));
    }
    match &wish.nid {
        Some(nid) if nid.parse::<u16>().ok() != device.nid().parse().ok() => {
            Some(format!("and not node {nid}"))
        }
        _ => None,
    }
}

/// Does what a line says, and says what that was.
fn apply_line(device: &Device, wish: &Wish, dry: bool) -> Result<String, Failure> {
    if !device.is_node() {
        if dry {
            return Ok(format!("{} would become a node", device.name));
        }
        load_driver()?;
        let made = make_node(device, wish);
        // An orphan is a node again, and that may be what is wished.
        if made.is_ok() || !device.is_node() {
            made?;
            set_access(device, wish)?;
            return Ok(device.as_node());
        }
    }
    if let Some(difference) = differs(device, wish) {
        return Err(Failure::new(format!(
            "{name} is node {}, {difference}: to change that, cdm detach {name} first",
            device.nid(),
            name = device.name
        )));
    }
    if dry {
        return Ok(format!("{} is node {}", device.name, device.nid()));
    }
    Ok(if set_access(device, wish)? {
        format!(
            "{} is node {} already, access is {} now",
            device.name,
            device.nid(),
            wish.access.as_deref().unwrap_or_default()
        )
    } else {
        format!("{} is node {} already", device.name, device.nid())
    })
}

pub fn apply(mut args: env::ArgsOs) -> Result<(), Failure> {
    let (mut file, mut dry, mut quiet) = (None, false, false);
    let mut only = Vec::new();

    while let Some(arg) = args.next() {
        match arg.to_str() {
            Some("-f") => {
                let name = args.next().and_then(|value| value.into_string().ok());
                file = Some(name.ok_or_else(|| Failure::usage("apply: -f needs a file"))?);
            }
            Some("-n") => dry = true,
            Some("-q") => quiet = true,
            Some(word) if !word.starts_with('-') => only.push(word.to_string()),
            _ => {
                return Err(Failure::usage(format!(
                    "apply: {}: no such option",
                    arg.to_string_lossy()
                )))
            }
        }
    }
    if quiet && only.is_empty() {
        return Err(Failure::usage("apply: -q asks about which device?"));
    }

    let name = file.as_deref().unwrap_or(conf::FILE);
    let text = match fs::read(name) {
        Ok(bytes) => String::from_utf8_lossy(&bytes).into_owned(),
        // Nothing is said, and that is done.
        Err(error) if error.kind() == io::ErrorKind::NotFound && file.is_none() => String::new(),
        Err(error) => return Err(Failure::io(name, &error)),
    };
    let mut entries = conf::parse(&text);

    // Who names devices asks for the lines that mean these, however they name them.
    if !only.is_empty() {
        let meant = |text: &str| match Device::lookup(text) {
            Ok(Some(device)) => device.name,
            _ => text.to_string(),
        };
        let wanted: Vec<String> = only.iter().map(|text| meant(text)).collect();
        entries.retain(|entry| wanted.contains(&meant(&entry.device)));
        if quiet {
            // What is wrong with a line makes the device nobody else's.
            std::process::exit(i32::from(entries.is_empty()));
        }
        if entries.is_empty() {
            return print(&format!("no line of {name} names {}\n", only.join(" or ")));
        }
    }
    if entries.is_empty() {
        return print(&format!("{name} names no device\n"));
    }

    let _lock = if dry { None } else { Some(lock()?) };
    let mut failed = 0;
    for entry in &entries {
        let result = match &entry.wish {
            Ok(wish) => Device::lookup(&entry.device).and_then(|device| match device {
                Some(device) => apply_line(&device, wish, dry),
                None => Ok(format!("{} is not there", entry.device)),
            }),
            Err(cause) => Err(Failure::new(cause.as_str())),
        };
        match result {
            Ok(what) => print(&format!("{name}:{}: {what}\n", entry.line))?,
            Err(failure) => {
                eprintln!("cdm: {name}:{}: {}", entry.line, failure.text());
                failed += 1;
            }
        }
    }
    if failed == 0 {
        return Ok(());
    }
    Err(Failure::new(format!(
        "{failed} of {} lines of {name} could not be done",
        entries.len()
    )))
}

pub fn detach(mut args: env::ArgsOs) -> Result<(), Failure> {
    let (mut name, mut to) = (None, None);

    while let Some(arg) = args.next() {
        match arg.to_str() {
            Some("--to") => {
                let driver = args.next().and_then(|value| value.into_string().ok());
                to = Some(driver.ok_or_else(|| Failure::usage("detach: --to needs a driver"))?);
            }
            Some(word) if !word.starts_with('-') && name.is_none() => name = Some(word.to_string()),
            _ => {
                return Err(Failure::usage(format!(
                    "detach: {}: no such option",
                    arg.to_string_lossy()
                )))
            }
        }
    }
    let name = name.ok_or_else(|| Failure::usage("detach: which device? daxX.Y"))?;

    let device = Device::find(&name)?;
    let _lock = lock()?;
    if let Some(driver) = to.as_deref().filter(|driver| !has_driver(driver)) {
        return Err(Failure::new(format!("there is no driver {driver}")));
    }
    if device.driver().as_deref() != Some(DRIVER) {
        return Err(Failure::new(format!(
            "{name} is not attached: it has {}",
            device
                .driver()
                .map_or("no driver".to_string(), |name| format!("the driver {name}"))
        )));
    }
    let nid = device.nid();
    device.write("state", "unplugged").map_err(|error| {
        if error.raw_os_error() == Some(EBUSY) {
            Failure::new(format!(
                "node {nid} stays: pages of it are held; the kernel's log says by whom"
            ))
        } else {
            Failure::io(device.file("state"), &error)
        }
    })?;
    device.take_from_cdm()?;
    match to {
        Some(driver) => device.give_to(&driver),
        None => Ok(()),
    }
}
