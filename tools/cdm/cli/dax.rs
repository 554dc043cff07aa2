// SPDX-License-Identifier: GPL-2.0

//! `cdm attach` and `cdm detach`

use crate::{
    print,
    reason,
    Failure, //
};
use std::{
    env,
    fs,
    io,
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

/// A device on the dax bus.
struct Device {
    name: String,
}

impl Device {
    fn find(name: &str) -> Result<Self, Failure> {
        let is_name = name.starts_with("dax") && !name.contains('/');
        if is_name && Path::new(&format!("{BUS}/devices/{name}")).exists() {
            return Ok(Self {
                name: name.to_string(),
            });
        }
        let mut names: Vec<String> = fs::read_dir(format!("{BUS}/devices"))
            .into_iter()
            .flatten()
            .filter_map(|entry| entry.ok()?.file_name().into_string().ok())
            .collect();
        names.sort_unstable();
        Err(Failure::new(format!(
            "there is no dax device {name}{}",
            if names.is_empty() {
                ", and no other".to_string()
            } else {
                format!(", but {}", names.join(", "))
            }
        )))
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
        if !Path::new(&format!("{BUS}/drivers/{driver}")).exists() {
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

fn load_driver() -> Result<(), Failure> {
    let dir = format!("{BUS}/drivers/{DRIVER}");

    if !Path::new(&dir).exists() {
        let _ = Command::new("modprobe")
            .arg(MODULE)
            .stderr(Stdio::null())
            .status();
    }
    if Path::new(&dir).exists() {
        return Ok(());
    }
    Err(Failure::new(format!(
        "this kernel has no driver {DRIVER} for dax devices (the module {MODULE})"
    )))
}

/// Makes a node of a device that no driver has.
fn bring_online(device: &Device, caps: &str, nid: Option<&str>) -> Result<(), Failure> {
    device.give_to(DRIVER)?;
    if device.is_online() {
        return Err(Failure::new(format!(
            "{} was node {} when its driver was taken from it, with pages in use, and is that \
             again, allowed: {}",
            device.name,
            device.read("cdm_nid"),
            device.read("cdm_caps")
        )));
    }
    device.write("cdm_caps", caps).map_err(|error| {
        Failure::new(format!(
            "{caps}: {}: not what a node can allow; the kernel knows {}",
            reason(&error),
            fs::read_to_string("/sys/kernel/mm/cdm/capabilities")
                .map_or(String::new(), |names| names.trim().replace(' ', ","))
        ))
    })?;
    if let Some(nid) = nid {
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

pub fn attach(mut args: env::ArgsOs) -> Result<(), Failure> {
    let (mut name, mut caps, mut nid) = (None, None, None);

    while let Some(arg) = args.next() {
        let mut value = |what: &str| {
            args.next()
                .and_then(|value| value.into_string().ok())
                .ok_or_else(|| Failure::usage(format!("attach: {what}")))
        };
        match arg.to_str() {
            Some("--caps") => caps = Some(value("--caps needs names")?),
            Some("--nid") => nid = Some(value("--nid needs a node number")?),
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
    let caps = caps.ok_or_else(|| {
        Failure::usage("attach: what may the kernel do there? --caps NAMES, or none")
    })?;

    let device = Device::find(&name)?;
    load_driver()?;
    if device.driver().as_deref() == Some(DRIVER) && device.is_online() {
        return Err(Failure::new(format!(
            "{name} is node {} already",
            device.read("cdm_nid")
        )));
    }

    let before = Before::take(&device)?;
    if let Err(failure) = bring_online(&device, &caps, nid.as_deref()) {
        // An orphan that has its driver again stays with it.
        if !device.is_online() {
            before.restore(&device).map_err(|undo| {
                failure.and(&format!("and it could not be given back: {}", undo.text()))
            })?;
        }
        return Err(failure);
    }
    print(&format!(
        "node {}: {name}, allowed: {}\n",
        device.read("cdm_nid"),
        device.read("cdm_caps").replace(' ', ",")
    ))
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
    if device.driver().as_deref() != Some(DRIVER) {
        return Err(Failure::new(format!(
            "{name} is not attached: it has {}",
            device
                .driver()
                .map_or("no driver".to_string(), |name| format!("the driver {name}"))
        )));
    }
    let nid = device.read("cdm_nid");
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
