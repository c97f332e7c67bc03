//! Devices and their descriptions.

use std::ffi::{c_char, c_int};

use super::{NamedValue, arguments, opaque};

opaque! {
    /// A device; lives as long as its client.
    Device,
    /// What is known of a device, present or not; lives as long as its client or topology.
    DeviceDescription,
    /// A memory of a device.
    Memory,
}

// A C `bool` is declared as `u8`, here and elsewhere: any byte but 0 and 1 in a Rust `bool` is
// undefined behaviour.
arguments! {
    DeviceGetDescriptionArgs for DeviceGetDescription {
        device: *mut Device,
        device_description: *mut DeviceDescription,
    }
    DeviceIsAddressableArgs for DeviceIsAddressable {
        device: *mut Device,
        is_addressable: u8,
    }
    DeviceMemoryStatsArgs for DeviceMemoryStats {
        device: *mut Device,
        bytes_in_use: i64,
        peak_bytes_in_use: i64,
        peak_bytes_in_use_is_set: u8,
        num_allocs: i64,
        num_allocs_is_set: u8,
        largest_alloc_size: i64,
        largest_alloc_size_is_set: u8,
        bytes_limit: i64,
        bytes_limit_is_set: u8,
        bytes_reserved: i64,
        bytes_reserved_is_set: u8,
        peak_bytes_reserved: i64,
        peak_bytes_reserved_is_set: u8,
        bytes_reservable_limit: i64,
        bytes_reservable_limit_is_set: u8,
        largest_free_block_bytes: i64,
        largest_free_block_bytes_is_set: u8,
        pool_bytes: i64,
        pool_bytes_is_set: u8,
        peak_pool_bytes: i64,
        peak_pool_bytes_is_set: u8,
    }
    DeviceDescriptionIdArgs for DeviceDescriptionId {
        device_description: *mut DeviceDescription,
        id: c_int,
    }
    DeviceDescriptionProcessIndexArgs for DeviceDescriptionProcessIndex {
        device_description: *mut DeviceDescription,
        process_index: c_int,
    }
    DeviceDescriptionAttributesArgs for DeviceDescriptionAttributes {
        device_description: *mut DeviceDescription,
        num_attributes: usize,
        attributes: *const NamedValue,
    }
    DeviceDescriptionKindArgs for DeviceDescriptionKind {
        device_description: *mut DeviceDescription,
        kind: *const c_char,
        kind_size: usize,
    }
    DeviceDescriptionToStringArgs for DeviceDescriptionToString {
        device_description: *mut DeviceDescription,
        text: *const c_char,
        text_size: usize,
    }
}
