//! The PJRT C API: plugins, clients, buffers and executables.
//!
//! XLA's compilers come as plugins: shared libraries that export one function, `GetPjrtApi`. This
//! crate loads one ([`Plugin`]). It opens the devices of this process ([`Client`]) or describes
//! devices that are elsewhere ([`Topology`]). It compiles programs ([`Program`],
//! [`CompileOptions`]) into [`Executable`]s, and copies arrays between the host ([`HostTensor`])
//! and the devices ([`Buffer`]). What takes time is asynchronous: an [`Event`] can be awaited under
//! any runtime, or waited for. Handles are `Send` and `Sync`, keep alive what they depend on, and
//! free what they own on drop: on the thread that drops them, never on one of the plugin's.
//!
//! The bindings are ours because the published ones do not run on today's plugins: some argument
//! structures are too short there, several devices cannot execute together, and bfloat16 is
//! missing. This crate knows nothing of graphs or models, and is the only one with `unsafe`.
//!
//! ```no_run
//! use ankh_pjrt::{Argument, CompileOptions, HostTensor, NamedValue, Platform, Plugin, Program};
//!
//! # fn main() -> ankh_pjrt::Result<()> {
//! # let module = ankh_proto::xla::HloModuleProto::default();
//! let plugin = Plugin::find(Platform::Cpu, None)?;
//! let client = plugin.create_client(&[NamedValue::int("cpu_device_count", 1)])?;
//! let executable = client.compile(&Program::hlo_module(&module), &CompileOptions::new())?;
//! let device = &client.addressable_devices()?[0];
//! let x = client.upload(&HostTensor::new::<f32>([2], &[1.0, 2.0]), device)?;
//! let outputs = executable.execute(vec![vec![Argument::Keep(&x)]])?;
//! println!("{:?}", outputs[0][0].to_host()?.to_vec::<f32>()?);
//! # Ok(())
//! # }
//! ```

mod api;
mod binary;
mod buffer;
mod client;
mod client_handle;
mod compile_options;
mod device;
mod element_type;
mod error;
mod event;
mod executable;
#[cfg(test)]
mod fake;
mod host_tensor;
mod logs;
mod named_value;
mod parts;
mod pinned;
mod platform;
mod plugin;
mod profile;
mod program;
mod search;
mod shared_tensor;
mod signals;
mod sys;
mod topology;
mod wakers;

pub use buffer::Buffer;
pub use client::Client;
pub use compile_options::{CompileOptions, FlagValue, Partitioner};
pub use device::{Device, DeviceDescription, DeviceMemory};
pub use element_type::ElementType;
pub use error::{Code, Error, Result};
pub use event::Event;
pub use executable::{Argument, CompiledProgram, Executable, ProgramMemory};
pub use host_tensor::{Element, HostTensor};
pub use logs::quiet_logs;
pub use named_value::{NamedValue, Value};
pub use pinned::{PINS, Pin, user_plugins};
pub use platform::Platform;
pub use plugin::Plugin;
pub use profile::Profile;
pub use program::Program;
pub use shared_tensor::SharedTensor;
pub use signals::keeping_signals;
pub use topology::Topology;
