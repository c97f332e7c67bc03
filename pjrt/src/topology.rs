//! Topologies: devices that need not be here, to compile for.

use std::fmt;
use std::ptr;

use crate::api::{Api, slice, string};
use crate::compile_options::CompileOptions;
use crate::device::DeviceDescription;
use crate::error::Result;
use crate::executable::CompiledProgram;
use crate::named_value::{NamedValue, RawNamedValues};
use crate::plugin::Plugin;
use crate::program::{Program, RawProgram};
use crate::sys;

/// Devices that need not be here, to compile for.
pub struct Topology {
    raw: *mut sys::TopologyDescription,
    plugin: Plugin,
}

// SAFETY: the C API's topologies are constant and may be used from any thread.
unsafe impl Send for Topology {}
// SAFETY: as above.
unsafe impl Sync for Topology {}

impl Plugin {
    /// Describes devices that need not be here, to compile for, such as `v4:2x4x4`.
    pub fn topology(&self, name: &str, options: &[NamedValue]) -> Result<Topology> {
        let options = RawNamedValues::new(options);
        let mut arguments = sys::TopologyDescriptionCreateArgs {
            name: name.as_ptr().cast(),
            name_size: name.len(),
            create_options: options.as_ptr(),
            num_options: options.len(),
            ..Default::default()
        };
        // SAFETY: name and options outlive the call, and the topology is given to us.
        unsafe { self.api().call(&mut arguments) }?;
        Ok(Topology {
            raw: arguments.topology,
            plugin: self.clone(),
        })
    }
}

impl Topology {
    /// The platform's name, such as `tpu`.
    pub fn platform_name(&self) -> Result<String> {
        let mut arguments = sys::TopologyDescriptionPlatformNameArgs {
            topology: self.raw,
            ..Default::default()
        };
        // SAFETY: the topology is live, and the name lives as long as it.
        unsafe {
            self.api().call(&mut arguments)?;
            Ok(string(
                arguments.platform_name,
                arguments.platform_name_size,
            ))
        }
    }

    /// What the platform says of its version.
    pub fn platform_version(&self) -> Result<String> {
        let mut arguments = sys::TopologyDescriptionPlatformVersionArgs {
            topology: self.raw,
            ..Default::default()
        };
        // SAFETY: the topology is live, and the text lives as long as it.
        unsafe {
            self.api().call(&mut arguments)?;
            Ok(string(
                arguments.platform_version,
                arguments.platform_version_size,
            ))
        }
    }

    /// The devices.
    pub fn devices(&self) -> Result<Vec<DeviceDescription>> {
        let mut arguments = sys::TopologyDescriptionGetDeviceDescriptionsArgs {
            topology: self.raw,
            ..Default::default()
        };
        // SAFETY: the topology is live, and the descriptions live as long as it.
        unsafe {
            self.api().call(&mut arguments)?;
            slice(arguments.descriptions, arguments.num_descriptions)
                .iter()
                .map(|&raw| DeviceDescription::read(self.api(), raw))
                .collect()
        }
    }

    /// The plugin's own attributes.
    pub fn attributes(&self) -> Result<Vec<NamedValue>> {
        let mut arguments = sys::TopologyDescriptionAttributesArgs {
            topology: self.raw,
            ..Default::default()
        };
        // SAFETY: the topology is live, and the attributes live as long as it.
        unsafe {
            self.api().call(&mut arguments)?;
            NamedValue::copy(arguments.attributes, arguments.num_attributes)
        }
    }

    /// Compiles a program for these devices. A program that does not fit their memory fails with
    /// [`Code::ResourceExhausted`](crate::Code).
    pub fn compile(&self, program: &Program, options: &CompileOptions) -> Result<CompiledProgram> {
        let options = options.encode();
        let program = RawProgram::new(program);
        let mut arguments = sys::CompileArgs {
            topology: self.raw,
            program: &program.raw,
            compile_options: options.as_ptr().cast(),
            compile_options_size: options.len(),
            client: ptr::null_mut(),
            ..Default::default()
        };
        // SAFETY: the topology is live; program and options outlive the call, and the executable is
        // given to us.
        unsafe {
            self.api().call(&mut arguments)?;
            Ok(CompiledProgram::new(
                self.plugin.clone(),
                arguments.executable,
            ))
        }
    }

    fn api(&self) -> &Api {
        self.plugin.api()
    }
}

impl Drop for Topology {
    fn drop(&mut self) {
        let mut arguments = sys::TopologyDescriptionDestroyArgs {
            topology: self.raw,
            ..Default::default()
        };
        // SAFETY: the topology is ours and destroyed once. A failure leaves nothing to do.
        let _ = unsafe { self.api().call(&mut arguments) };
    }
}

impl fmt::Debug for Topology {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Topology")
            .field("plugin", &self.plugin)
            .finish_non_exhaustive()
    }
}
