//! Devices: what they are, where they sit, and how full their memory is.

use std::fmt;
use std::sync::Arc;

use crate::api::{Api, string};
use crate::client_handle::ClientHandle;
use crate::error::Result;
use crate::named_value::{NamedValue, Value};
use crate::sys;

/// A device of a client.
#[derive(Clone)]
pub struct Device {
    client: Arc<ClientHandle>,
    raw: *mut sys::Device,
    description: Arc<DeviceDescription>,
    addressable: bool,
}

// SAFETY: devices are constant and live as long as their client, which a `Device` holds.
unsafe impl Send for Device {}
// SAFETY: as above.
unsafe impl Sync for Device {}

impl Device {
    /// # Safety
    ///
    /// `raw` is a device of the client.
    pub(crate) unsafe fn new(client: Arc<ClientHandle>, raw: *mut sys::Device) -> Result<Self> {
        let api = client.plugin().api();
        let mut description = sys::DeviceGetDescriptionArgs {
            device: raw,
            ..Default::default()
        };
        let mut addressable = sys::DeviceIsAddressableArgs {
            device: raw,
            ..Default::default()
        };
        // SAFETY: the device is live, and its description lives as long. Both are plain reads; one
        // that fails leaves an empty description or an unaddressable device.
        let (description, addressable) = unsafe {
            let description = match api.call(&mut description) {
                Ok(()) => DeviceDescription::read(api, description.device_description)?,
                Err(_) => DeviceDescription::default(),
            };
            let known = api.call(&mut addressable).is_ok();
            (description, known && addressable.is_addressable != 0)
        };
        Ok(Self {
            description: Arc::new(description),
            addressable,
            client,
            raw,
        })
    }

    pub(crate) fn raw(&self) -> *mut sys::Device {
        self.raw
    }

    pub(crate) fn belongs_to(&self, client: &Arc<ClientHandle>) -> bool {
        Arc::ptr_eq(&self.client, client)
    }

    /// The device's number among those of all processes.
    pub fn id(&self) -> i32 {
        self.description.id
    }

    /// The kind of device, such as `cpu` or `TPU v4`.
    pub fn kind(&self) -> &str {
        &self.description.kind
    }

    /// What is known of the device.
    pub fn description(&self) -> &DeviceDescription {
        &self.description
    }

    /// Whether the device belongs to this process.
    pub fn is_addressable(&self) -> bool {
        self.addressable
    }

    /// How full the device's memory is. A plugin without such figures reports
    /// [`Code::Unimplemented`](crate::Code).
    pub fn memory_stats(&self) -> Result<DeviceMemory> {
        let mut arguments = sys::DeviceMemoryStatsArgs {
            device: self.raw,
            ..Default::default()
        };
        // SAFETY: the device is live.
        unsafe { self.client.plugin().api().call(&mut arguments) }?;
        let known = |is_set: u8, value: i64| (is_set != 0).then_some(value);
        let a = &arguments;
        Ok(DeviceMemory {
            bytes_in_use: a.bytes_in_use,
            peak_bytes_in_use: known(a.peak_bytes_in_use_is_set, a.peak_bytes_in_use),
            allocations: known(a.num_allocs_is_set, a.num_allocs),
            largest_allocation: known(a.largest_alloc_size_is_set, a.largest_alloc_size),
            bytes_limit: known(a.bytes_limit_is_set, a.bytes_limit),
            bytes_reserved: known(a.bytes_reserved_is_set, a.bytes_reserved),
            largest_free_block: known(
                a.largest_free_block_bytes_is_set,
                a.largest_free_block_bytes,
            ),
        })
    }
}

impl fmt::Debug for Device {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Device({}, {})", self.id(), self.kind())
    }
}

/// What is known of a device, present or part of a topology.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct DeviceDescription {
    /// The device's number among those of all processes.
    pub id: i32,
    /// The process, that is host, that the device belongs to.
    pub process_index: i32,
    /// The kind of device, such as `TPU v4`.
    pub kind: String,
    /// The device in words.
    pub text: String,
    /// The plugin's own attributes.
    pub attributes: Vec<NamedValue>,
}

impl DeviceDescription {
    /// An attribute by name.
    pub fn attribute(&self, name: &str) -> Option<&Value> {
        let found = self.attributes.iter().find(|value| value.name == name)?;
        Some(&found.value)
    }

    /// Where the chip sits on the torus; TPUs only.
    pub fn coords(&self) -> Option<&[i64]> {
        match self.attribute("coords")? {
            Value::IntList(coords) => Some(coords),
            _ => None,
        }
    }

    /// Reads a description; what the plugin does not tell stays empty. Fails where it tells
    /// attributes that cannot be read.
    ///
    /// # Safety
    ///
    /// `raw` is a live description of the plugin.
    pub(crate) unsafe fn read(api: &Api, raw: *mut sys::DeviceDescription) -> Result<Self> {
        let mut this = Self::default();
        let mut id = sys::DeviceDescriptionIdArgs {
            device_description: raw,
            ..Default::default()
        };
        let mut process_index = sys::DeviceDescriptionProcessIndexArgs {
            device_description: raw,
            ..Default::default()
        };
        let mut kind = sys::DeviceDescriptionKindArgs {
            device_description: raw,
            ..Default::default()
        };
        let mut text = sys::DeviceDescriptionToStringArgs {
            device_description: raw,
            ..Default::default()
        };
        let mut attributes = sys::DeviceDescriptionAttributesArgs {
            device_description: raw,
            ..Default::default()
        };
        // SAFETY: the description is live, and the strings and attributes live as long as it.
        unsafe {
            if api.call(&mut id).is_ok() {
                this.id = id.id;
            }
            if api.call(&mut process_index).is_ok() {
                this.process_index = process_index.process_index;
            }
            if api.call(&mut kind).is_ok() {
                this.kind = string(kind.kind, kind.kind_size);
            }
            if api.call(&mut text).is_ok() {
                this.text = string(text.text, text.text_size);
            }
            if api.call(&mut attributes).is_ok() {
                this.attributes =
                    NamedValue::copy(attributes.attributes, attributes.num_attributes)?;
            }
        }
        Ok(this)
    }
}

/// How full a device's memory is, as far as the plugin tells.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DeviceMemory {
    /// Bytes held by live buffers and programs.
    pub bytes_in_use: i64,
    /// The most bytes held so far.
    pub peak_bytes_in_use: Option<i64>,
    /// The number of allocations.
    pub allocations: Option<i64>,
    /// The largest allocation so far.
    pub largest_allocation: Option<i64>,
    /// The bytes there are.
    pub bytes_limit: Option<i64>,
    /// The bytes kept back by the system.
    pub bytes_reserved: Option<i64>,
    /// The largest allocation that would succeed now.
    pub largest_free_block: Option<i64>,
}

#[cfg(test)]
mod tests {
    use std::ptr::{self, NonNull};

    use super::*;
    use crate::fake::Fake;

    unsafe extern "C" fn addressable(
        arguments: *mut sys::DeviceIsAddressableArgs,
    ) -> *mut sys::Error {
        // SAFETY: the caller gives live arguments; any byte but 0 is true in C.
        unsafe {
            (&raw mut (*arguments).is_addressable)
                .cast::<u8>()
                .write(255)
        };
        ptr::null_mut()
    }

    unsafe extern "C" fn stats(arguments: *mut sys::DeviceMemoryStatsArgs) -> *mut sys::Error {
        // SAFETY: as above.
        unsafe {
            (*arguments).num_allocs = 7;
            (&raw mut (*arguments).num_allocs_is_set)
                .cast::<u8>()
                .write(2);
            (*arguments).bytes_limit = 9;
        }
        ptr::null_mut()
    }

    #[test]
    fn any_byte_but_zero_is_true() {
        let fake = Fake::with_client().with(stats);
        let plugin = fake.with(addressable).plugin();
        let client = plugin.create_client(&[]).unwrap();
        // SAFETY: the fake plugin does not look into its devices, and has no descriptions.
        let device = unsafe { Device::new(client.handle(), NonNull::dangling().as_ptr()) };
        let device = device.unwrap();
        assert!(device.is_addressable());
        let memory = device.memory_stats().unwrap();
        assert_eq!(memory.allocations, Some(7));
        assert_eq!(memory.bytes_limit, None);
    }
}
