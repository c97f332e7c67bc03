//! Clients: creation, devices, compilation, uploads.

use std::ffi::{c_char, c_int, c_void};

use super::{
    Buffer, Device, Event, LoadedExecutable, Memory, MemoryLayout, NamedValue, arguments, opaque,
};

opaque! {
    /// A connection to the devices of this process.
    Client,
}

/// A program and the name of its format. As an output, `code` is where the plugin is to write.
#[repr(C)]
pub(crate) struct Program {
    pub struct_size: usize,
    pub extension_start: *mut super::ExtensionBase,
    pub code: *mut c_char,
    pub code_size: usize,
    pub format: *const c_char,
    pub format_size: usize,
}

/// The host memory may change as soon as the call returns.
pub(crate) const HOST_BUFFER_IMMUTABLE_ONLY_DURING_CALL: c_int = 0;

/// The device may use the host memory itself. It does not change until the event says that the
/// device needs it no more.
pub(crate) const HOST_BUFFER_IMMUTABLE_ZERO_COPY: c_int = 2;

arguments! {
    ClientCreateArgs for ClientCreate {
        create_options: *const NamedValue,
        num_options: usize,
        kv_get_callback: *const c_void,
        kv_get_user_arg: *mut c_void,
        kv_put_callback: *const c_void,
        kv_put_user_arg: *mut c_void,
        client: *mut Client,
        kv_try_get_callback: *const c_void,
        kv_try_get_user_arg: *mut c_void,
    }
    ClientDestroyArgs for ClientDestroy {
        client: *mut Client,
    }
    ClientPlatformNameArgs for ClientPlatformName {
        client: *mut Client,
        platform_name: *const c_char,
        platform_name_size: usize,
    }
    ClientPlatformVersionArgs for ClientPlatformVersion {
        client: *mut Client,
        platform_version: *const c_char,
        platform_version_size: usize,
    }
    ClientProcessIndexArgs for ClientProcessIndex {
        client: *mut Client,
        process_index: c_int,
    }
    ClientDevicesArgs for ClientDevices {
        client: *mut Client,
        devices: *const *mut Device,
        num_devices: usize,
    }
    ClientAddressableDevicesArgs for ClientAddressableDevices {
        client: *mut Client,
        devices: *const *mut Device,
        num_devices: usize,
    }
    ClientCompileArgs for ClientCompile {
        client: *mut Client,
        program: *const Program,
        compile_options: *const c_char,
        compile_options_size: usize,
        executable: *mut LoadedExecutable,
    }
    ClientBufferFromHostBufferArgs for ClientBufferFromHostBuffer {
        client: *mut Client,
        data: *const c_void,
        element_type: c_int,
        dims: *const i64,
        num_dims: usize,
        byte_strides: *const i64,
        num_byte_strides: usize,
        host_buffer_semantics: c_int,
        device: *mut Device,
        memory: *mut Memory,
        device_layout: *mut MemoryLayout,
        done_with_host_buffer: *mut Event,
        buffer: *mut Buffer,
    }
}
