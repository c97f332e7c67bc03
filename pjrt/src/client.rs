//! Clients: the devices of this process, and what is made for them.

use std::ffi::c_int;
use std::fmt;
use std::sync::Arc;

use crate::api::{slice, string};
use crate::buffer::Buffer;
use crate::client_handle::ClientHandle;
use crate::compile_options::CompileOptions;
use crate::device::Device;
use crate::element_type::ElementType;
use crate::error::{Error, Result};
use crate::event::Event;
use crate::executable::Executable;
use crate::host_tensor::HostTensor;
use crate::named_value::{NamedValue, RawNamedValues};
use crate::plugin::Plugin;
use crate::program::{Program, RawProgram};
use crate::shared_tensor::SharedTensor;
use crate::sys;

/// The devices of this process. Clones are the same client, which is closed when the last clone and
/// everything made by it are gone.
#[derive(Clone)]
pub struct Client {
    handle: Arc<ClientHandle>,
}

impl Plugin {
    /// Opens the devices of this process. Options are the plugin's own, such as `cpu_device_count`.
    pub fn create_client(&self, options: &[NamedValue]) -> Result<Client> {
        let options = RawNamedValues::new(options);
        let mut arguments = sys::ClientCreateArgs {
            create_options: options.as_ptr(),
            num_options: options.len(),
            ..Default::default()
        };
        // SAFETY: the options outlive the call, there are no callbacks, and the client is given to
        // us.
        let handle = unsafe {
            self.api().call(&mut arguments)?;
            ClientHandle::new(arguments.client, self.clone())
        };
        Ok(Client {
            handle: Arc::new(handle),
        })
    }
}

impl Client {
    #[cfg(test)]
    pub(crate) fn handle(&self) -> Arc<ClientHandle> {
        Arc::clone(&self.handle)
    }

    /// The plugin that made this client.
    pub fn plugin(&self) -> &Plugin {
        self.handle.plugin()
    }

    /// The platform's name, such as `cpu` or `tpu`.
    pub fn platform_name(&self) -> Result<String> {
        let mut arguments = sys::ClientPlatformNameArgs {
            client: self.handle.raw(),
            ..Default::default()
        };
        // SAFETY: the client is live, and the name lives as long as it.
        unsafe {
            self.call(&mut arguments)?;
            Ok(string(
                arguments.platform_name,
                arguments.platform_name_size,
            ))
        }
    }

    /// What the platform says of its version.
    pub fn platform_version(&self) -> Result<String> {
        let mut arguments = sys::ClientPlatformVersionArgs {
            client: self.handle.raw(),
            ..Default::default()
        };
        // SAFETY: the client is live, and the text lives as long as it.
        unsafe {
            self.call(&mut arguments)?;
            Ok(string(
                arguments.platform_version,
                arguments.platform_version_size,
            ))
        }
    }

    /// The index of this process among those of a slice.
    pub fn process_index(&self) -> Result<i32> {
        let mut arguments = sys::ClientProcessIndexArgs {
            client: self.handle.raw(),
            ..Default::default()
        };
        // SAFETY: the client is live.
        unsafe { self.call(&mut arguments) }?;
        Ok(arguments.process_index)
    }

    /// The devices of all processes.
    pub fn devices(&self) -> Result<Vec<Device>> {
        let mut arguments = sys::ClientDevicesArgs {
            client: self.handle.raw(),
            ..Default::default()
        };
        // SAFETY: the client is live, and the devices live as long as it.
        unsafe {
            self.call(&mut arguments)?;
            self.wrap_devices(arguments.devices, arguments.num_devices)
        }
    }

    /// The devices of this process.
    pub fn addressable_devices(&self) -> Result<Vec<Device>> {
        let mut arguments = sys::ClientAddressableDevicesArgs {
            client: self.handle.raw(),
            ..Default::default()
        };
        // SAFETY: the client is live, and the devices live as long as it.
        unsafe {
            self.call(&mut arguments)?;
            self.wrap_devices(arguments.devices, arguments.num_devices)
        }
    }

    /// Compiles a program for devices of this client and loads it onto them. This takes long and
    /// blocks the thread; clients may be shared, so an asynchronous task can leave it to a blocking
    /// one.
    pub fn compile(&self, program: &Program, options: &CompileOptions) -> Result<Executable> {
        let options = options.encode();
        let program = RawProgram::new(program);
        let mut arguments = sys::ClientCompileArgs {
            client: self.handle.raw(),
            program: &program.raw,
            compile_options: options.as_ptr().cast(),
            compile_options_size: options.len(),
            ..Default::default()
        };
        // SAFETY: the client is live; program and options outlive the call, and the executable is
        // given to us.
        unsafe {
            self.call(&mut arguments)?;
            Executable::new(Arc::clone(&self.handle), arguments.executable)
        }
    }

    /// Loads a serialized executable onto the devices it was compiled for.
    pub fn load(&self, serialized: &[u8]) -> Result<Executable> {
        let mut arguments = sys::ExecutableDeserializeAndLoadArgs {
            client: self.handle.raw(),
            serialized_executable: serialized.as_ptr().cast(),
            serialized_executable_size: serialized.len(),
            ..Default::default()
        };
        // SAFETY: the client is live, the bytes outlive the call, and the executable is given to
        // us.
        unsafe {
            self.call(&mut arguments)?;
            Executable::new(Arc::clone(&self.handle), arguments.loaded_executable)
        }
    }

    /// Copies a tensor to a device. The tensor is free again when this returns; the buffer becomes
    /// ready later.
    pub fn upload(&self, tensor: &HostTensor, device: &Device) -> Result<Buffer> {
        tensor.check()?;
        let array = (tensor.element_type, &*tensor.dims, &*tensor.bytes);
        // SAFETY: it was checked that the bytes are those of the dimensions. The plugin reads them
        // during the call only.
        unsafe {
            self.put(
                array,
                device,
                sys::HOST_BUFFER_IMMUTABLE_ONLY_DURING_CALL,
                (),
            )
        }
    }

    /// Gives a device a tensor that it does not copy where it can use the host's memory itself, as
    /// a CPU can. The memory is held until neither the buffer nor a program needs it.
    pub fn share(&self, tensor: &SharedTensor, device: &Device) -> Result<Buffer> {
        let array = (tensor.element_type(), tensor.dims(), tensor.bytes());
        let (semantics, held) = (sys::HOST_BUFFER_IMMUTABLE_ZERO_COPY, tensor.clone());
        // SAFETY: a shared tensor's bytes are those of its dimensions, and nothing changes or moves
        // them: a plugin that takes over a donated buffer copies what is not its own. They are held
        // until the event says that the device needs them no more. Where that cannot be watched
        // they are held for ever.
        unsafe { self.put(array, device, semantics, held) }
    }

    /// # Safety
    ///
    /// The bytes are as many as the type and the dimensions say. While `held` lives, they stay
    /// where they are and do not change, for as long as the semantics say.
    unsafe fn put<T: Send + 'static>(
        &self,
        (element_type, dims, bytes): (ElementType, &[i64], &[u8]),
        device: &Device,
        semantics: c_int,
        held: T,
    ) -> Result<Buffer> {
        if !device.belongs_to(&self.handle) {
            return Err(Error::AnotherClient {
                what: format!("device {}", device.id()),
            });
        }
        let mut arguments = sys::ClientBufferFromHostBufferArgs {
            client: self.handle.raw(),
            data: bytes.as_ptr().cast(),
            element_type: element_type.to_raw() as c_int,
            dims: dims.as_ptr(),
            num_dims: dims.len(),
            host_buffer_semantics: semantics,
            device: device.raw(),
            ..Default::default()
        };
        // SAFETY: client and device are live; the caller promises that the bytes are those of the
        // dimensions, and how long they stay. The buffer and the event are given to us.
        unsafe {
            self.call(&mut arguments)?;
            let buffer = Buffer::new(Arc::clone(&self.handle), arguments.buffer);
            // The event, which has what is held, says when the host memory is free.
            let done = Event::watch(
                Arc::clone(&self.handle),
                arguments.done_with_host_buffer,
                "PJRT_Client_BufferFromHostBuffer",
                held,
            );
            drop(done);
            buffer
        }
    }

    /// # Safety
    ///
    /// `devices` is null or has `count` devices of this client.
    unsafe fn wrap_devices(
        &self,
        devices: *const *mut sys::Device,
        count: usize,
    ) -> Result<Vec<Device>> {
        // SAFETY: the caller's promise.
        unsafe { slice(devices, count) }
            .iter()
            // SAFETY: as above; devices live as long as their client, which they hold.
            .map(|&raw| unsafe { Device::new(Arc::clone(&self.handle), raw) })
            .collect()
    }

    /// # Safety
    ///
    /// As for [`Api::call`](crate::api::Api::call).
    unsafe fn call<A: sys::Arguments>(&self, arguments: &mut A) -> Result<()> {
        // SAFETY: the caller's promise.
        unsafe { self.plugin().api().call(arguments) }
    }
}

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Client")
            .field("plugin", self.plugin())
            .finish()
    }
}
